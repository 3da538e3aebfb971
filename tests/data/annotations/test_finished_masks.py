"""Finished masks: layouts of folders, and what values mean."""

import numpy as np
import pytest
from PIL import Image

from cfnseg.data.annotations.color_tables import read_table
from cfnseg.data.annotations.finished_masks import read
from cfnseg.data.annotations.regions import draw
from cfnseg.errors import UserError

SIZE = (20, 30)
COLORS = np.array([[0, 0, 0], [128, 64, 128], [220, 20, 60]], np.uint8)
NAMES = ["background", "road", "person"]
IDS = {name: i for i, name in enumerate(NAMES)}
LINES = "0 background 0 0 0\n1 road 128 64 128\n2 person 220 20 60\n"


def truth(seed=0):
    """(H, W) uint8 ids 0, 1, 2 with a hole."""
    mask = np.zeros(SIZE, np.uint8)
    mask[3 + seed : 17, 4:25] = 1
    mask[6:10, 8:14] = 0
    mask[11:15, 10:20] = 2
    return mask


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def photo(path):
    save(path, np.zeros((*SIZE, 3), np.uint8))


def masks(annotations, ids=IDS):
    """The masks by the photograph's name."""
    ground = 255 if annotations.background is None else ids[annotations.background]
    return {x.path.name: draw(x, SIZE, ids, ground, 255) for x in annotations.images}


@pytest.mark.parametrize("table", ["classes.txt", "class_dict.csv", "given"])
def test_colors_with_a_table(tmp_path, table):
    given = None
    for i in (0, 1):
        photo(tmp_path / "images" / "train" / f"{i}.jpg")
        save(tmp_path / "masks" / "train" / f"{i}.png", COLORS[truth(i)])
    if table == "class_dict.csv":
        rows = "".join(f"{n},{r},{g},{b}\n" for n, (r, g, b) in zip(NAMES, COLORS.tolist()))
        (tmp_path / table).write_text(f"name,r,g,b\n{rows}")
    else:
        given = tmp_path / "lines.txt" if table == "given" else None
        (given or tmp_path / table).write_text(LINES)
    found = read(tmp_path, None, given)
    assert found.names == NAMES and found.colors["road"] == (128, 64, 128)
    assert [x.split for x in found.images] == ["train", "train"]
    assert found.images[0].size == SIZE and found.background == "background"
    for i, mask in enumerate(masks(found).values()):
        assert np.array_equal(mask, truth(i))


def test_cvats_segmentation_masks(tmp_path):
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\n"
        "person:220,20,60::\n"
    )
    for name in "ab":
        save(tmp_path / "SegmentationClass" / f"{name}.png", COLORS[truth()])
        save(tmp_path / "SegmentationObject" / f"{name}.png", COLORS[truth()[::-1]])
        photo(tmp_path / "photos" / f"{name}.jpg")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("b\n")
    found = read(tmp_path, tmp_path / "photos")
    assert found.names == NAMES
    assert {x.path.name: x.split for x in found.images} == {"a.jpg": "", "b.jpg": "val"}
    assert all(np.array_equal(mask, truth()) for mask in masks(found).values())


def test_roboflows_masks(tmp_path):
    for split in ("train", "valid"):
        photo(tmp_path / split / "x_jpg.rf.1.jpg")
        save(tmp_path / split / "x_jpg.rf.1_mask.png", truth())
        rows = "".join(f"{i}, {n}\n" for i, n in enumerate(NAMES))
        (tmp_path / split / "_classes.csv").write_text(f"Pixel Value, Class\n{rows}")
    found = read(tmp_path)
    assert found.names == NAMES and [x.split for x in found.images] == ["train", "val"]
    assert all(np.array_equal(draw(x, SIZE, IDS, 0, 255), truth()) for x in found.images)
    assert [x.path.parent.name for x in found.images] == ["train", "valid"]


@pytest.mark.parametrize("white", [1, 255])
def test_black_and_white(tmp_path, white):
    photo(tmp_path / "a.jpg")
    save(tmp_path / "a_mask.png", (truth() > 0).astype(np.uint8) * np.uint8(white))
    found = read(tmp_path)
    assert found.names == ["background", "foreground"]
    (mask,) = masks(found, {"background": 0, "foreground": 1}).values()
    assert np.array_equal(mask, truth() > 0)


def test_sixteen_bits_and_ids_without_names(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    values = np.array([0, 1000, 40000], np.uint16)
    save(tmp_path / "masks" / "a.png", values[truth()])
    found = read(tmp_path)
    assert found.names == ["background", "class_1000", "class_40000"]
    ids = {"background": 0, "class_1000": 1, "class_40000": 2}
    assert np.array_equal(masks(found, ids)["a.jpg"], truth())
    (tmp_path / "classes.txt").write_text(
        "0 background 0 0 0\n1000 road 1 1 1\n40000 person 2 2 2\n"
    )
    assert np.array_equal(masks(read(tmp_path))["a.jpg"], truth())
    save(tmp_path / "masks" / "a.png", np.arange(600, dtype=np.uint16).reshape(SIZE))
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(UserError, match="600 values .object ids"):
        read(tmp_path)


def test_255_is_ignored_in_ids(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    mask = truth()
    mask[0] = 255
    save(tmp_path / "masks" / "a.png", mask)
    found = read(tmp_path)
    assert found.names == ["background", "class_1", "class_2"]
    assert np.array_equal(masks(found, {n: i for i, n in enumerate(found.names)})["a.jpg"], mask)


def test_a_palette_is_read_by_its_colors_or_ids(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    (tmp_path / "classes.txt").write_text(LINES)
    (tmp_path / "masks").mkdir()
    order = np.array([0, 2, 1], np.uint8)  # the palette's own order is another one than the ids'
    for palette, stored in (
        (COLORS[order], order[truth()]),
        (COLORS[:1].repeat(3, 0) + 7, truth()),
    ):
        image = Image.fromarray(stored, mode="P")
        image.putpalette(palette.astype(np.uint8).tobytes())
        image.save(tmp_path / "masks" / "a.png")
        assert np.array_equal(masks(read(tmp_path))["a.jpg"], truth())


@pytest.mark.parametrize("layout", ["{0}_{1}.png", "masks/{0}_{1}.png", "masks/{1}/{0}.png"])
def test_one_file_a_class(tmp_path, layout):
    for name in ("img_1", "img_12"):
        home = tmp_path / "images" if layout.startswith("masks") else tmp_path
        photo(home / f"{name}.jpg")
        for i in (1, 2):
            value = (truth() == i).astype(np.uint8) * 255
            save(tmp_path / layout.format(name, NAMES[i]), value)
    found = read(tmp_path)
    assert sorted(found.names) == ["person", "road"] and found.background == "background"
    found_masks = masks(found)
    assert set(found_masks) == {"img_1.jpg", "img_12.jpg"}
    assert all(np.array_equal(mask, truth()) for mask in found_masks.values())


def test_what_is_wrong_is_one_line(tmp_path):
    photo(tmp_path / "images" / "a.jpg")
    mask = tmp_path / "masks" / "a.png"
    with pytest.raises(UserError, match="has no masks; expected folders"):
        read(tmp_path)
    save(mask, COLORS[truth()])
    with pytest.raises(UserError, match="no table of them; give --classes") as error:
        read(tmp_path)
    assert "NAME 220 20 60" in str(error.value)
    (tmp_path / "classes.txt").write_text("0 background 0 0 0\n1 road 128 64 128\n")
    with pytest.raises(UserError, match=r"1 colours are not in .*: \(220, 20, 60\) \(40 px\)"):
        masks(read(tmp_path))
    save(mask, truth())
    with pytest.raises(UserError, match=r"1 values are not in .*: 2 \(40 px\)"):
        masks(read(tmp_path))
    mask.write_bytes(mask.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"a\.png: not a readable mask"):
        masks(read(tmp_path))
    mask.unlink()
    save(tmp_path / "masks" / "a.jpg", COLORS[truth()])
    with pytest.raises(UserError, match="may be lossy"):
        masks(read(tmp_path))
    (tmp_path / "masks" / "a.jpg").unlink()
    save(tmp_path / "masks" / "a_road.png", np.arange(600, dtype=np.uint16).reshape(SIZE))
    with pytest.raises(UserError, match="the mask of road has several values"):
        masks(read(tmp_path))
    save(tmp_path / "masks" / "a_person.png", truth()[:-1])
    with pytest.raises(UserError, match="20x|30x19"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name, text, part",
    [
        ("classes.txt", "0 a 0 0\n", "line 1: expected `id name r g b`"),
        ("classes.txt", "0 a 0 0 0\n1 b 0 0 0\n", "line 2: \\(0, 0, 0\\) is b and a"),
        ("labelmap.txt", "a:0,0::\n", "line 1: expected r, g, b"),
        ("x.csv", "name,r,g,b\na,1,2\n", "line 2: expected name,r,g,b"),
        ("x.csv", "name,r,g,b\na,1,2,256\n", "line 2: expected r, g, b in 0..255"),
    ],
)
def test_a_wrong_table_names_its_line(tmp_path, name, text, part):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=part):
        read_table(tmp_path / name)
