"""COCO JSON: masks equal pycocotools' own, and what is wrong is one line."""

import json

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from cfnseg.data.annotations.coco_json import read, run_lengths
from cfnseg.data.annotations.regions import draw
from cfnseg.errors import UserError

H, W = 40, 50
CATEGORIES = [
    {"id": 3, "name": "car", "supercategory": "vehicle"},
    {"id": 17, "name": "traffic light", "supercategory": "outdoor"},
]


def blob(seed):
    """(H, W) uint8: a region with a hole."""
    yy, xx = np.mgrid[:H, :W]
    distance = np.hypot(yy - 18 - seed, xx - 22)
    return np.asfortranarray((distance < 14) & (distance > 5), np.uint8)


def uncompressed(mask):
    flat = np.r_[0, mask.ravel("F"), 2]
    ends = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.r_[0, ends[:-1], H * W]).tolist()
    return {"size": [H, W], "counts": counts}


def compressed(mask):
    code = rle.encode(mask)
    return {"size": [H, W], "counts": code["counts"].decode()}


def export(*annotations, images=1, **more):
    return {
        "images": [
            {"id": 10 + i, "file_name": f"{'abc'[i]}.jpg", "height": H, "width": W}
            for i in range(images)
        ],
        "annotations": [
            {"id": i, "image_id": 10, "category_id": 3, "iscrowd": 0, **a}
            for i, a in enumerate(annotations, 1)
        ],
        "categories": CATEGORIES,
        **more,
    }


def written(folder, content, name="export.json"):
    (folder / name).write_text(json.dumps(content))
    return folder / name


POLYGONS = [[5, 5, 30.5, 8, 28, 33.2, 4, 20], [35, 2, 48, 2, 48, 12.5]]


@pytest.mark.parametrize("shape", [POLYGONS, uncompressed(blob(0)), compressed(blob(3))])
def test_a_mask_is_that_of_cocos_tool(tmp_path, shape):
    path = written(tmp_path, export({"segmentation": shape}))
    coco = COCO(str(path))
    image = read(path).images[0]
    assert image.size == (H, W) and image.path == tmp_path / "a.jpg"
    expected = coco.annToMask(coco.anns[1])
    found = draw(image, (H, W), {"car": 1}, 0, 255)
    assert 100 < expected.sum() < H * W - 100 and np.array_equal(found, expected)


def test_run_lengths_are_those_of_cocos_tool():
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.9):
        for shape in ((1, 1), (40, 50), (300, 700)):
            mask = np.asfortranarray(rng.random(shape) < share, np.uint8)
            mask[: shape[0] // 2] = 0
            lengths = run_lengths(rle.encode(mask)["counts"].decode())
            values = np.arange(len(lengths)) % 2
            assert np.array_equal(np.repeat(values, lengths), mask.ravel("F"))


def test_crowds_gaps_boxes_and_images_without_regions(tmp_path):
    content = export(
        {"segmentation": POLYGONS},
        {"segmentation": uncompressed(blob(0)), "iscrowd": 1, "category_id": 17},
        {"segmentation": []},
        {"segmentation": [], "image_id": 99},
        {"segmentation": [[1, 1, 2, 2]]},
        {"segmentation": POLYGONS, "category_id": 4},
        images=2,
    )
    found = read(written(tmp_path, content))
    assert found.names == ["car", "traffic light"] and found.background == "background"
    assert [len(image.regions) for image in found.images] == [2, 0]
    mask = draw(found.images[0], (H, W), {"car": 5, "traffic light": 6}, 0, 255)
    assert set(np.unique(mask)) == {0, 5, 255}
    text = "\n".join(found.notes)
    for part in ("1 regions crowds", "box alone", "an image that", "a category that", "3 points"):
        assert part in text


def test_a_folder_of_splits(tmp_path):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.jpg").touch()
        content = export({"segmentation": POLYGONS})
        content["categories"] = [{"id": 0, "name": "cars", "supercategory": "none"}] + [
            {**c, "supercategory": "cars"} for c in CATEGORIES
        ]
        written(tmp_path / split, content, "_annotations.coco.json")
    found = read(tmp_path)
    assert [(x.split, x.path.parent.name) for x in found.images] == [
        ("train", "train"),
        ("val", "valid"),
    ]
    assert found.names == ["car", "traffic light"]


def test_two_files_of_one_image_are_joined(tmp_path):
    written(tmp_path, export({"segmentation": POLYGONS}), "things_train.json")
    second = export({"segmentation": uncompressed(blob(0)), "category_id": 17})
    written(tmp_path, second, "stuff_train.json")
    (image,) = read(tmp_path).images
    assert {region.name for region in image.regions} == {"car", "traffic light"}
    assert image.split == "train"


@pytest.mark.parametrize(
    "change, part",
    [
        (lambda text: text[: len(text) // 2], "line 1: no JSON"),
        (lambda text: "[]", "'images' is nothing"),
        (lambda text: text.replace('"id": 10, ', ""), "'id' is nothing"),
        (lambda text: text.replace('"a.jpg"', "7"), "image 10: 'file_name' is int"),
        (lambda text: text.replace("30.5", '"x"'), "annotation 1: a polygon is no list"),
        (lambda text: text.replace(f'"size": [{H}', f'"size": [{H + 1}'), "run lengths of size"),
        (lambda text: text.replace('"counts": "', '"counts": "5'), "do not fill"),
        (lambda text: text.replace('"counts": "', '"counts": "zz'), "do not fill"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, change, part):
    content = export({"segmentation": POLYGONS}, {"segmentation": compressed(blob(1))})
    path = tmp_path / "export.json"
    path.write_text(change(json.dumps(content)))
    with pytest.raises(UserError) as error:
        read(path)
    assert part in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"not found at .*none\.json"):
        read(tmp_path / "none.json")
    with pytest.raises(UserError, match="no JSON file"):
        read(tmp_path)
