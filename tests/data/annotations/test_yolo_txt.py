"""YOLO's polygons: folders and lists, names, EXIF, boxes and other wrong lines."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from cfnseg.data.annotations import yolo_txt
from cfnseg.data.annotations.detection import detect
from cfnseg.data.annotations.parsing import upright_size
from cfnseg.data.annotations.regions import draw
from cfnseg.data.files import read_image
from cfnseg.errors import UserError

SIZE = (40, 50)
IDS = {"road": 1, "car": 2}
CORNERS = [(5.2, 4.1), (44.0, 8.5), (30.3, 20.0), (41.0, 36.2), (9.9, 30.0)]
YAML = "train: images/train\nval: images/val\nnames: [road, car]\n"


def photo(path, size=SIZE, orientation=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size[::-1])
    image.getexif()[0x0112] = orientation
    image.save(path, exif=image.getexif())


def label(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines))


def line(index, corners, size=SIZE):
    return f"{index} " + " ".join(f"{x / size[1]:.6f} {y / size[0]:.6f}" for x, y in corners)


def box(x, y, w, h):
    return [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]


def dataset(folder, *lines, yaml=YAML):
    (folder / "data.yaml").write_text(yaml)
    photo(folder / "images/train/a.jpg")
    photo(folder / "images/val/b.jpg")
    label(folder / "labels/train/a.txt", *lines)
    return folder / "data.yaml"


def test_a_box_is_its_pixels_and_the_smaller_is_on_top(tmp_path):
    lines = line(1, box(6, 5, 10, 8)), line(0, box(0, 0, 25, 20))
    expected = np.zeros(SIZE, np.uint16)
    expected[:20, :25] = 1
    expected[5:13, 6:16] = 2
    for given in (lines, lines[::-1]):
        found = yolo_txt.read(dataset(tmp_path, *given, ""))
        assert np.array_equal(draw(found.images[0], SIZE, IDS, 0, 255), expected)
    assert found.names == ["road", "car"] and not found.notes
    assert [(i.path.name, i.split, len(i.regions)) for i in found.images] == [
        ("a.jpg", "train", 2),
        ("b.jpg", "val", 0),
    ]
    assert yolo_txt.is_ours(tmp_path) and yolo_txt.is_ours(tmp_path / "data.yaml")
    assert len(yolo_txt.read(tmp_path).images) == 2


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_polygon_of_an_upright_photograph_is_pillows(tmp_path, orientation):
    path = dataset(tmp_path, line(1, CORNERS))
    photo(tmp_path / "images/train/a.jpg", SIZE[::-1] if orientation == 6 else SIZE, orientation)
    found = yolo_txt.read(path).images[0]
    assert found.size == SIZE == read_image(found.path).shape[:2]
    canvas = Image.new("L", SIZE[::-1])
    ImageDraw.Draw(canvas).polygon([(x - 0.5, y - 0.5) for x, y in CORNERS], fill=1)
    expected = np.asarray(canvas)
    mask = draw(found, SIZE, IDS, 0, 255)
    inner, outer = cv2.erode(expected, np.ones((3, 3))), cv2.dilate(expected, np.ones((3, 3)))
    assert inner.any() and mask[inner > 0].all() and not mask[outer == 0].any()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_the_size_is_that_of_read_image(tmp_path, suffix):
    for orientation in range(1, 9):
        path = tmp_path / f"{orientation}.{suffix}"
        photo(path, (6, 9), orientation)
        assert upright_size(path) == read_image(path).shape[:2]


@pytest.mark.parametrize("names", ["{0: road, 1: car}", "\n  0: road\n  1: car", "['road', 'car']"])
def test_names(tmp_path, names):
    yaml = f"train: images/train\nnc: 2\nnames: {names}\n"
    found = yolo_txt.read(dataset(tmp_path, line(1, CORNERS), yaml=yaml))
    assert found.names == ["road", "car"] and found.images[0].regions[0].name == "car"


def test_places(tmp_path):
    names = "names: [road, car]\n"

    def found(yaml, images=None):
        images = yolo_txt.read(dataset(tmp_path, line(0, CORNERS), yaml=yaml + names), images)
        return [(i.path.name, i.split, len(i.regions)) for i in images.images]

    a, b = ("a.jpg", "train", 1), ("b.jpg", "val", 0)
    assert found("path: ../elsewhere/x\ntrain: images/train\nval: images/val\ntest:\n") == [a, b]
    assert found(f"path: {tmp_path}\ntrain: [images/train, images/val]\n")[1] == (
        "b.jpg",
        "train",
        0,
    )
    label(tmp_path / "train.txt", "./images/train/a.jpg", "")
    assert found("train: train.txt\nval: images/val\n") == [a, b]
    photo(tmp_path / "valid/images/c.png")  # as Roboflow has it
    label(tmp_path / "valid/labels/c.txt", line(1, CORNERS))
    assert found("train: images/train\nval: ../valid/images\n") == [a, ("c.png", "val", 1)]
    photo(tmp_path / "flat/d.png")  # labels beside the photographs
    label(tmp_path / "flat/d.txt", line(1, CORNERS))
    assert found("train: valid\nval: flat\n") == [("c.png", "train", 1), ("d.png", "val", 1)]
    photo(tmp_path / "photos/train/a.jpg")
    photo(tmp_path / "photos/train/new.jpg")
    away = tmp_path / "photos"
    assert found("train: images/train\n", away) == [a, ("new.jpg", "train", 0)]
    assert found("train: train.txt\n", away) == [a]
    photo(tmp_path / "all/a.jpg")
    photo(tmp_path / "all/b.jpg")
    assert found("train: images/train\n", tmp_path / "all") == [a]


def test_notes(tmp_path):
    yaml = "train: images/train\nval: images/train\ntest: images/test\nnames: [road]\n"
    result = yolo_txt.read(dataset(tmp_path, yaml=yaml))
    assert [i.split for i in result.images] == ["train"]
    assert result.notes == [
        "test: images/test is not there",
        "1 image in several splits: the first counts",
    ]
    (tmp_path / "labels/train/a.txt").unlink()
    with pytest.raises(UserError, match=r"none of 1 images has a label file.*labels/train/a\.txt"):
        yolo_txt.read(tmp_path)
    with pytest.raises(UserError, match=r"no images of train, val or test \(train: x is not there"):
        yolo_txt.read(dataset(tmp_path, yaml="train: x\nnames: [road]\n"))


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ("1 0.5 0.5 0.2 0.1", "boxes, not polygons"),
        ("1 0.5 0.5 0.2 0.1 0.3 0.4 0.9", "8 numbers, expected a class and at least 3 pairs"),
        ("1 0.5 0.5", "3 numbers"),
        ("1 0.5 0.5 0.2 nan 0.3 0.4", "not finite"),
        ("1 0.5 0.5 0.2 a 0.3 0.4", "more than numbers"),
        ("2 0.1 0.1 0.2 0.1 0.3 0.4", r"class 2, expected one of 0\.\.1"),
        ("0.5 0.1 0.1 0.2 0.1 0.3 0.4", r"class 0\.5"),
        ("-1 0.1 0.1 0.2 0.1 0.3 0.4", "class -1"),
    ],
)
def test_wrong_lines(tmp_path, wrong, fault):
    path = dataset(tmp_path, line(0, CORNERS), "", wrong)
    with pytest.raises(UserError, match=rf"labels/train/a\.txt, line 3: .*{fault}") as error:
        yolo_txt.read(path)
    assert "\n" not in str(error.value)


def test_beyond_the_image(tmp_path):
    found = yolo_txt.read(dataset(tmp_path, line(1, box(-10, -10, 25, 30))))
    expected = np.zeros(SIZE, np.uint16)
    expected[:20, :15] = 2
    assert np.array_equal(draw(found.images[0], SIZE, IDS, 0, 255), expected)


@pytest.mark.parametrize(
    ("yaml", "fault"),
    [
        ("train: [images/train\n", "line 2: not YAML"),
        ("train: !!python/object:os.system x\n", "not YAML"),
        ("- a\n", "got list"),
        ("", "got NoneType"),
        ("train: images/train\n", "names is None"),
        ("train: images/train\nnames: road\n", "names is 'road'"),
        ("train: images/train\nnames: {a: road}\n", "no whole numbers"),
        ("train: images/train\nnames: [road, road]\n", "'road' twice"),
        ("train: 3\nnames: [road]\n", "train is 3"),
        ("names: [road]\n", "no images of train"),
    ],
)
def test_wrong_settings(tmp_path, yaml, fault):
    with pytest.raises(UserError, match=rf"data\.yaml.*{fault}") as error:
        yolo_txt.read(dataset(tmp_path, yaml=yaml))
    assert "\n" not in str(error.value)


def test_wrong_files(tmp_path):
    path = dataset(tmp_path, line(0, CORNERS))
    (tmp_path / "images/val/b.jpg").write_bytes(b"\xff\xd8no")
    with pytest.raises(UserError, match=r"b\.jpg: not a readable image"):
        yolo_txt.read(path)
    label(tmp_path / "train.txt", "images/train/gone.jpg")
    path.write_text("train: train.txt\nnames: [road]\n")
    with pytest.raises(UserError, match=r"gone\.jpg.*line 1 of .*train\.txt"):
        yolo_txt.read(path)
    (tmp_path / "other.yaml").write_text(YAML)
    with pytest.raises(UserError, match="2 annotation files: data.yaml, other.yaml"):
        yolo_txt.read(tmp_path)
    (tmp_path / "other.yaml").write_text("steps: 3\n")
    assert not yolo_txt.is_ours(tmp_path / "other.yaml")
    assert not yolo_txt.is_ours(tmp_path / "images")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_classes_txt_in_place_of_data_yaml(tmp_path, elsewhere):
    """As Label Studio writes it: classes.txt, notes.json, images/, labels/."""
    folder, photos = tmp_path / "in", tmp_path / ("photos" if elsewhere else "in/images")
    for name in ("a.jpg", "val/b.jpg", "c.jpg"):
        photo(photos / name)
    label(folder / "labels/a.txt", line(1, box(6, 5, 10, 8)))
    label(folder / "labels/val/b.txt", line(0, box(6, 5, 10, 8)))
    label(folder / "classes.txt", "traffic light", "car", "")
    (folder / "notes.json").write_text('{"categories": [{"id": 0, "name": "traffic light"}]}')
    for source in (folder, folder / "classes.txt"):
        found = yolo_txt.read(source, photos if elsewhere else None)
        assert found.names == ["traffic light", "car"]
        assert [(i.path.name, i.split, [r.name for r in i.regions]) for i in found.images] == [
            ("a.jpg", "", ["car"]),
            ("c.jpg", "", []),
            ("b.jpg", "val", ["traffic light"]),
        ]
    assert detect(folder) == "yolo"


def test_what_is_wrong_without_data_yaml(tmp_path):
    def error():
        with pytest.raises(UserError) as caught:
            yolo_txt.read(tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "list of classes not found" in error()
    (tmp_path / "classes.txt").write_text("road\n\ncar\n")
    assert "classes.txt: a class without a name" in error()
    (tmp_path / "classes.txt").write_text("road\nroad\n")
    assert "names has 'road' twice" in error()
    (tmp_path / "classes.txt").write_text("")
    assert "expected the class names" in error()
    (tmp_path / "classes.txt").write_bytes(b"\xff")
    assert "classes.txt, line 1: not UTF-8" in error()
    (tmp_path / "classes.txt").write_text("road\n")
    assert "no images in" in error()
    photo(tmp_path / "images/a.jpg")
    assert "none of 1 images has a label file" in error()
    label(tmp_path / "labels/a.txt", line(1, box(6, 5, 10, 8)))
    assert "line 1: class 1, expected one of 0..0" in error()
    label(tmp_path / "labels/a.txt", "0 .1 .1 .2 .2")
    assert "boxes, not polygons" in error()
