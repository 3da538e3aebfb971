"""Supervisely's projects: shapes, holes, order, splits, wrong files."""

import base64
import io
import json
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from cfnseg.data.annotations import supervisely_json
from cfnseg.data.annotations.regions import draw
from cfnseg.errors import UserError

SIZE = (40, 50)
IDS = {"road": 1, "car": 2}
META = {
    "classes": [
        {"title": "road", "shape": "polygon", "color": "#8040FF", "id": 1},
        {"title": "car", "shape": "any", "color": "#0A0B0C", "id": 2},
        {"title": "lamp", "shape": "point", "color": "#000000", "id": 3},
    ],
    "tags": [],
    "projectType": "images",
}


def project(folder, *objects, name="ds/ann/a.jpg.json", meta=META):
    (folder / "meta.json").write_text(json.dumps(meta))
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"height": SIZE[0], "width": SIZE[1]}
    path.write_text(json.dumps({"description": "", "size": size, "objects": list(objects)}))
    return folder


def shape(kind, exterior, *interior, title="car"):
    rings = {"exterior": exterior, "interior": list(interior)}
    return {"classTitle": title, "geometryType": kind, "points": rings, "tags": []}


def packed(mask, mode="RGBA"):
    """A mask as Supervisely packs it: PNG, zlib, base64."""
    if mode == "RGBA":
        image = Image.fromarray(np.repeat(mask[..., None] * np.uint8(255), 4, 2), "RGBA")
        more = {}
    elif mode == "P":  # black is clear
        image = Image.fromarray(mask.astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 255, 255, 255])
        more = {"transparency": 0, "bits": 1}
    else:
        image, more = Image.fromarray(mask * np.uint8(255)).convert(mode), {}
    stream = io.BytesIO()
    image.save(stream, "PNG", **more)
    return base64.b64encode(zlib.compress(stream.getvalue())).decode()


def bitmap(data, x, y, title="car"):
    return {
        "classTitle": title,
        "geometryType": "bitmap",
        "bitmap": {"data": data, "origin": [x, y]},
    }


def mask_of(folder, *objects):
    found = supervisely_json.read(project(folder, *objects))
    return draw(found.images[0], SIZE, IDS, 0, 255)


def test_classes_colours_sizes(tmp_path):
    found = supervisely_json.read(project(tmp_path))
    assert found.names == ["road", "car"]
    assert found.colors == {"road": (128, 64, 255), "car": (10, 11, 12)}
    assert found.images[0].size == SIZE and found.images[0].path == tmp_path / "ds/img/a.jpg"
    assert supervisely_json.is_ours(tmp_path) and supervisely_json.is_ours(tmp_path / "meta.json")
    assert len(supervisely_json.read(tmp_path / "meta.json").images) == 1
    assert not supervisely_json.is_ours(tmp_path / "ds")
    assert not supervisely_json.is_ours(tmp_path / "ds/ann/a.jpg.json")


def test_a_rectangle_is_its_pixels_the_last_included(tmp_path):
    expected = np.zeros(SIZE, np.uint16)
    expected[6:16, 5:20] = 2
    for ends in ([[5, 6], [19, 15]], [[19, 15], [5, 6]]):
        assert np.array_equal(mask_of(tmp_path, shape("rectangle", ends)), expected)
    found = mask_of(tmp_path, shape("rectangle", [[4.9, 6.1], [20.0, 16.0]]))  # not of pixels
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "1"])
def test_a_bitmap_is_its_pixels(tmp_path, mode):
    mask = np.random.default_rng(2).random((9, 11)) < 0.5
    mask[3:5, 4:7] = False
    expected = np.zeros((60, 60), np.uint16)
    expected[35:44, 3:14][mask] = 2
    found = mask_of(tmp_path, bitmap(packed(mask, mode), 3, 35))
    assert np.array_equal(found, expected[:40, :50])


def test_a_polygon_with_holes_is_opencvs_up_to_its_border(tmp_path):
    outer = [[5, 4], [44, 8], [40, 36], [9, 33]]
    holes = [[12, 10], [20, 10], [20, 18], [12, 18]], [[28, 20], [36, 20], [32, 30]]
    expected = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(expected, [np.array(outer)], 1)  # as Supervisely's own library draws
    for hole in holes:
        cv2.fillPoly(expected, [np.array(hole)], 0)
    found = mask_of(tmp_path, shape("polygon", outer, *holes))
    inner, outside = cv2.erode(expected, np.ones((3, 3))), cv2.dilate(expected, np.ones((3, 3)))
    assert inner.any() and found[inner > 0].all() and not found[outside == 0].any()
    assert not found[14, 16] and not found[23, 32] and found[14, 24] == 2


def test_points_name_pixels(tmp_path):
    whole = shape("polygon", [[10, 10], [20, 10], [20, 20], [10, 20]])
    part = shape("polygon", [[10.5, 10.5], [20.5, 10.5], [20.5, 20.5], [10.5, 20.5]])
    assert np.array_equal(mask_of(tmp_path, whole), mask_of(tmp_path, part))


@pytest.mark.parametrize("flipped", [False, True])
def test_later_objects_are_on_top(tmp_path, flipped):
    large = shape("rectangle", [[0, 0], [29, 29]], title="road")
    small = shape("rectangle", [[5, 5], [9, 9]])
    objects = (small, large) if flipped else (large, small)
    assert mask_of(tmp_path, *objects)[7, 7] == (1 if flipped else 2)


def test_splits_and_images(tmp_path):
    names = ("train/ann/1.jpg.json", "val/ann/1.jpg.json", "x/datasets/test/ann/2.png.json")
    for name in (*names, "old/ann/3.json"):
        project(tmp_path, name=name)
    (tmp_path / "old/img").mkdir()
    (tmp_path / "old/img/3.bmp").touch()
    found = supervisely_json.read(tmp_path).images
    assert {i.path.relative_to(tmp_path).as_posix(): i.split for i in found} == {
        "old/img/3.bmp": "",
        "train/img/1.jpg": "train",
        "val/img/1.jpg": "val",
        "x/datasets/test/img/2.png": "test",
    }
    away = tmp_path.parent / f"{tmp_path.name} photos"
    for name in ("train/1.jpg", "val/img/1.jpg", "2.png"):
        (away / name).parent.mkdir(parents=True, exist_ok=True)
        (away / name).touch()
    found = supervisely_json.read(tmp_path, away).images
    paths = {i.path.relative_to(away).as_posix() for i in found if i.split}
    assert paths == {"train/1.jpg", "val/img/1.jpg", "2.png"}


def test_what_has_no_area_is_counted(tmp_path):
    line, point = shape("line", [[1, 2], [3, 4]]), shape("point", [[1, 2]])
    found = supervisely_json.read(project(tmp_path, line, line, point, shape("cuboid", [])))
    assert found.notes == [
        "1 shape of kind 'cuboid' is left out",
        "2 lines have no area",
        "1 point has no area",
    ]
    found = supervisely_json.read(
        project(tmp_path, shape("rectangle", [[1, 1], [2, 2]], title="x"))
    )
    assert found.names == ["road", "car", "x"]


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        (shape("polygon", [[1, 2], [3, float("nan")], [5, 6]]), "no finite number"),
        (shape("polygon", [[1, 2], [3]]), "not enough values"),
        (shape("polygon", 3), "not as the format has it"),
        (shape("rectangle", []), "not as the format has it"),
        ({"geometryType": "polygon"}, "'classTitle' is missing"),
        ({"classTitle": "car", "geometryType": "polygon"}, "'points' is missing"),
        (bitmap("????", 0, 0), "not as the format has it"),
        (bitmap(base64.b64encode(b"no zlib").decode(), 0, 0), "its bitmap is damaged"),
        (bitmap(base64.b64encode(zlib.compress(b"no PNG")).decode(), 0, 0), "bitmap is damaged"),
        (bitmap("", "a", 0), "could not convert"),
        (3, "not as the format has it"),
    ],
)
def test_damaged_objects(tmp_path, item, fault):
    with pytest.raises(UserError, match=rf"ds/ann/a\.jpg\.json, object 0: .*{fault}") as error:
        supervisely_json.read(project(tmp_path, item))
    assert "\n" not in str(error.value)


def test_a_bitmap_that_is_cut_off(tmp_path):
    data = packed(np.random.default_rng(0).random((20, 20)) < 0.5)
    raw = zlib.decompress(base64.b64decode(data))
    for size in (10, 60, len(raw) // 2):
        cut = base64.b64encode(zlib.compress(raw[:size])).decode()
        with pytest.raises(UserError, match="its bitmap is damaged"):
            supervisely_json.read(project(tmp_path, bitmap(cut, 0, 0)))
    for size in (8, len(data) // 8 * 4):
        with pytest.raises(UserError, match="its bitmap is damaged"):
            supervisely_json.read(project(tmp_path, bitmap(data[:size], 0, 0)))


def test_damaged_files(tmp_path):
    path = project(tmp_path, shape("rectangle", [[1, 1], [2, 2]])) / "ds/ann/a.jpg.json"
    for file in (path, tmp_path / "meta.json"):
        text = file.read_text()
        for size in range(0, len(text) - 1, 23):
            file.write_text(text[:size])
            with pytest.raises(UserError, match=rf"{file.name}, line 1: no JSON"):
                supervisely_json.read(tmp_path)
        file.write_text(text)
    for content, fault in (([], "size: not as"), ({"size": {"height": 1}}, "'width' is missing")):
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=rf"a\.jpg\.json, .*{fault}"):
            supervisely_json.read(tmp_path)
    with pytest.raises(UserError, match=r"meta\.json: a project of videos"):
        supervisely_json.read(project(tmp_path, meta={**META, "projectType": "videos"}))
    with pytest.raises(UserError, match=r"meta\.json, classes: 'title' is missing"):
        supervisely_json.read(project(tmp_path, meta={"classes": [{}]}))
    path.unlink()
    (tmp_path / "meta.json").write_text(json.dumps(META))
    with pytest.raises(UserError, match="no annotation files"):
        supervisely_json.read(tmp_path)
    with pytest.raises(UserError, match=r"meta\.json"):
        supervisely_json.read(tmp_path / "ds")


def alpha_mask(alpha, x, y, squeezed=True):
    """As the SDK packs it: gray values, 0 marked transparent; zlib, or not."""
    stream = io.BytesIO()
    Image.fromarray(alpha, "L").save(stream, "PNG", transparency=0)
    data = zlib.compress(stream.getvalue()) if squeezed else stream.getvalue()
    text = base64.b64encode(data).decode()
    return {**bitmap(text, x, y), "geometryType": "alpha_mask"}


@pytest.mark.parametrize("squeezed", [True, False])
def test_an_alpha_mask_is_its_pixels_from_half_on(tmp_path, squeezed):
    alpha = np.array([[0, 127, 128], [255, 50, 200]], np.uint8)
    expected = np.zeros(SIZE, np.uint16)
    expected[5:7, 9:12][alpha >= 128] = 2
    assert np.array_equal(mask_of(tmp_path, alpha_mask(alpha, 9, 5, squeezed)), expected)


def oriented(left, top, right, bottom, angle):
    """As the SDK writes it: two corners and radians."""
    points = [[left, top], [right, bottom]]
    return {**shape("oriented_bbox", []), "points": points, "angle": angle}


def test_an_oriented_box_turns_about_its_center(tmp_path):
    expected = np.zeros(SIZE, np.uint16)
    expected[10:16, 20:30] = 2
    assert np.array_equal(mask_of(tmp_path, oriented(20, 10, 29, 15, 0)), expected)
    expected[:] = 0
    expected[8:18, 22:28] = 2  # a quarter turn
    assert np.array_equal(mask_of(tmp_path, oriented(20, 10, 29, 15, np.pi / 2)), expected)
    expected = np.zeros(SIZE, np.uint8)
    corners = cv2.boxPoints(((24.5, 19.5), (24, 10), 30))  # OpenCV's degrees are clockwise too
    cv2.fillPoly(expected, [np.rint(corners * 256).astype(np.int32)], 1, shift=8)
    found = mask_of(tmp_path, oriented(13, 15, 36, 24, np.pi / 6))
    inner, outer = cv2.erode(expected, np.ones((3, 3))), cv2.dilate(expected, np.ones((3, 3)))
    assert found[inner > 0].all() and not found[outer == 0].any()


@pytest.mark.parametrize(
    "wrong",
    [
        {**oriented(1, 1, 5, 5, "north")},
        {**oriented(1, 1, 5, 5, 0), "points": [[1, 1]], "angle": float("nan")},
        {**alpha_mask(np.full((3, 3), 9, np.uint8), 0, 0), "bitmap": {"origin": [0, 0]}},
        {**bitmap("iVBORw0KGgoAAAA=", 0, 0), "geometryType": "alpha_mask"},
        {**bitmap("AAAA", 0, 0), "geometryType": "alpha_mask"},
        {**bitmap("no base64", 0, 0), "geometryType": "alpha_mask"},
    ],
)
def test_what_is_wrong_with_them_is_one_line(tmp_path, wrong):
    with pytest.raises(UserError, match=r"a\.jpg\.json, object 0: ") as caught:
        mask_of(tmp_path, wrong)
    assert "\n" not in str(caught.value)
