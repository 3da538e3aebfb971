"""The same box in every tool's export becomes the same mask: converted, format unnamed, or read."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from cfnseg.cli import COMMANDS, dispatch
from cfnseg.data.dataset import fingerprint, mask_files, open_dataset

SIZE, BOX = (40, 50), (6, 5, 10, 8)  # (H, W); x, y, width, height
NAMES = ("a.jpg", "b.jpg")
X, Y, W, H = BOX
CORNERS = [[X, Y], [X + W, Y], [X + W, Y + H], [X, Y + H]]


def coco(folder):
    flat = [float(v) for point in CORNERS for v in point]
    ids = range(1, len(NAMES) + 1)
    content = {
        "images": [
            {"id": i, "file_name": n, "height": 40, "width": 50} for i, n in zip(ids, NAMES)
        ],
        "categories": [{"id": 7, "name": "car"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7, "segmentation": [flat], "iscrowd": 0}
            for i in ids
        ],
    }
    (folder / "instances.json").write_text(json.dumps(content))


def labelme(folder):
    for name in NAMES:
        shape = {"label": "car", "shape_type": "polygon", "points": CORNERS, "group_id": None}
        content = {"imagePath": name, "imageHeight": 40, "imageWidth": 50, "shapes": [shape]}
        (folder / name).with_suffix(".json").write_text(json.dumps(content))


def cvat(folder):
    shape = f'<box label="car" xtl="{X}" ytl="{Y}" xbr="{X + W}" ybr="{Y + H}" z_order="0"/>'
    images = "".join(
        f'<image id="{i}" name="{n}" width="50" height="40">{shape}</image>'
        for i, n in enumerate(NAMES)
    )
    labels = "<labels><label><name>car</name></label></labels>"
    meta = f"<version>1.1</version><meta><task>{labels}</task></meta>"
    (folder / "annotations.xml").write_text(f"<annotations>{meta}{images}</annotations>")


def labelstudio(folder):
    points = [[100 * x / 50, 100 * y / 40] for x, y in CORNERS]
    value = {"points": points, "polygonlabels": ["car"]}
    result = {"type": "polygonlabels", "value": value, "original_width": 50, "original_height": 40}
    tasks = [
        {
            "id": i,
            "data": {"image": f"/data/upload/1/0123abcd-{name}"},
            "annotations": [{"id": i, "result": [{"id": "r", **result}]}],
        }
        for i, name in enumerate(NAMES)
    ]
    (folder / "export.json").write_text(json.dumps(tasks))


def via(folder):
    shape = {"name": "rect", "x": X, "y": Y, "width": W, "height": H}
    region = {"shape_attributes": shape, "region_attributes": {"class": "car"}}
    content = {f"{n}1": {"filename": n, "size": 1, "regions": [region]} for n in NAMES}
    (folder / "via.json").write_text(json.dumps(content))


def yolo(folder):
    (folder / "data.yaml").write_text("names: [car]\ntrain: .\n")
    line = "0 " + " ".join(f"{x / 50} {y / 40}" for x, y in CORNERS)
    for name in NAMES:
        (folder / name).with_suffix(".txt").write_text(line + "\n")


def supervisely(folder):
    meta = {"classes": [{"title": "car", "shape": "polygon", "color": "#0A0B0C"}], "tags": []}
    (folder / "meta.json").write_text(json.dumps(meta))
    points = {"exterior": [[X, Y], [X + W - 1, Y + H - 1]], "interior": []}  # pixels, both ends
    shape = {"classTitle": "car", "geometryType": "rectangle", "points": points, "tags": []}
    for part in ("img", "ann"):
        (folder / "ds" / part).mkdir(parents=True)
    for name in NAMES:
        (folder / name).rename(folder / "ds/img" / name)
        content = {"size": {"height": 40, "width": 50}, "objects": [shape]}
        (folder / "ds/ann" / f"{name}.json").write_text(json.dumps(content))


def masks(folder):
    (folder / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, car\n")
    for name in NAMES:
        mask = np.zeros(SIZE, np.uint8)
        mask[Y : Y + H, X : X + W] = 1
        Image.fromarray(mask).save(folder / f"{name.split('.')[0]}_mask.png")


EVERY = [coco, labelme, cvat, labelstudio, via, yolo, supervisely, masks]


def write(export, folder):
    """An export with its photographs, in a new folder."""
    folder.mkdir()
    for k, name in enumerate(NAMES):
        Image.fromarray(np.full((*SIZE, 3), 90 * k, np.uint8)).save(folder / name)
    export(folder)
    return folder


@pytest.mark.parametrize("export", EVERY)
def test_the_same_box(export, tmp_path, capsys):
    folder = write(export, tmp_path / "export")
    dispatch(COMMANDS, "cfnseg", ["convert", "auto", str(folder), str(tmp_path / "data")])
    assert f"format: {export.__name__}\n" in capsys.readouterr().out
    expected = np.zeros(SIZE, np.uint8)
    name = "coco_json" if export is coco else export.__name__
    for split in ("train", "val"):
        data = open_dataset("folder", str(tmp_path / "data"), split)
        assert len(data.names) == 1 and data.labels.names == ["background", "car"]
        background, car = (label.id for label in data.labels.labels)
        expected[:] = background
        expected[Y : Y + H, X : X + W] = car
        assert np.array_equal(data.ids(0), expected)
        own = open_dataset(name, str(folder), split)
        assert (own.names, own.labels) == (data.names, data.labels)
        assert np.array_equal(own.ids(0), expected) and np.array_equal(own.image(0), data.image(0))
        known = fingerprint(own)
        (file,) = mask_files(own, 0)
        os.utime(file, ns=(0, 0) if split == "train" else (1, 1))
        assert fingerprint(own) != known
    page = (tmp_path / "data/convert.html").read_text(encoding="utf-8")
    assert "car" in page and "<img" in page
