"""The format of a folder or file, by a look at a few files."""

import json

import numpy as np
import pytest
from PIL import Image

from cfnseg.data.annotations.detection import FORMATS, detect, reader
from cfnseg.errors import UserError

EXAMPLES = {
    "coco": (
        "annotations/instances.json",
        {
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": []}] * 9000,
            "images": [{"id": 1, "file_name": "a.jpg"}],
            "categories": [{"id": 1, "name": "a"}],
        },
    ),
    "labelme": (
        "a.json",
        {"shapes": [], "imagePath": "a.jpg", "imageData": "A" * 300_000, "imageHeight": 1},
    ),
    "via": ("via.json", {"a.jpg1": {"filename": "a.jpg", "regions": [{"shape_attributes": {}}]}}),
    "labelstudio": ("tasks.json", [{"id": 1, "data": {}, "annotations": [{"result": []}]}]),
    "supervisely": ("meta.json", {"classes": [{"title": "a", "shape": "bitmap"}], "tags": []}),
    "cvat": ("annotations.xml", "<annotations><version>1.1</version><image id='0'/></annotations>"),
    "yolo": ("data.yaml", "path: .\nnames:\n  0: a\n"),
    "masks": ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_is_known_again(tmp_path, kind):
    name, content = EXAMPLES[kind]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    assert detect(tmp_path) == kind
    if kind != "masks":
        assert detect(path) == kind


def test_yolos_lines_and_folders_of_masks(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.1 0.2 0.5 0.2 0.5 .9\n")
    assert detect(tmp_path) == "yolo"
    (tmp_path / "labels" / "a.txt").unlink()
    assert detect(tmp_path) is None
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "labels" / "a.png")
    assert detect(tmp_path) == "masks"


def test_what_is_no_export(tmp_path):
    (tmp_path / "a.json").write_text('{"version": 1}')
    (tmp_path / "notes.txt").write_text("see 1 2 3 4 5 6 7\n")
    (tmp_path / "b.xml").write_bytes(b"\xff\xfe<html>")
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "photo.png")
    assert detect(tmp_path) is None and detect(tmp_path / "none") is None
    with pytest.raises(UserError, match="did you mean labelme"):
        reader("labelm")
