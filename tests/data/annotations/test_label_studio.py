"""Label Studio's exports: every shape, the brush's code, tasks, image names, wrong files."""

import base64
import io
import json
import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from cfnseg.data.annotations import label_studio
from cfnseg.data.annotations.detection import detect
from cfnseg.data.annotations.label_studio import decode_brush
from cfnseg.data.annotations.regions import draw
from cfnseg.errors import UserError

SIZE = (40, 50)
IDS = {"road": 1, "car": 2}
# `mask2rle` of label-studio-converter 0.0.59 on the array of `test_a_brush_of_the_tool`
CODE = (
    "00000330391bfe9300c3fff88c030fffe23009ffed805bffc46013ffdb00b7ff88c030fffe2300c3fff88c03"
    "0fffe5b008ffe3008ffe3008ffe3008ffe3008ffe3008ffe3008ffe3008ffe3008fff21800"
)


def encoded(values, rng, sizes=(3, 4, 8, 16)):
    """rle-pack's code of uint8 values, cut into blocks at random."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{s - 1:04b}" for s in sizes)
    at = 0
    while at < len(values):
        which = int(rng.integers(4))
        length = int(min(len(values) - at, rng.integers(1, min(1 << sizes[which], 200) + 1)))
        part = values[at : at + length]
        same = bool((part == part[0]).all())
        bits += f"{same:b}{which:02b}{length - 1:0{sizes[which]}b}"
        bits += "".join(f"{value:08b}" for value in part[: 1 if same else length])
        at += length
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def shape(kind, label="car", **value):
    value[f"{kind}labels"] = [label]
    return {
        "id": str(abs(hash(str(value)))),
        "type": f"{kind}labels",
        "original_width": 50,
        "original_height": 40,
        "image_rotation": 0,
        "from_name": "label",
        "to_name": "image",
        "value": value,
    }


def task(*results, image="/data/upload/1/0a1b2c3d-a.jpg", number=1, **more):
    annotation = {"id": 7, "was_cancelled": False, "result": list(results), **more}
    return {"id": number, "data": {"image": image}, "annotations": [annotation]}


def written(folder, content, name="project.json"):
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def mask_of(folder, *results):
    found = label_studio.read(written(folder, [task(*results)]))
    return draw(found.images[0], SIZE, IDS, 0, 255)


def agree_up_to_the_border(found, expected):
    expected = expected.astype(np.uint8)
    inner, outer = cv2.erode(expected, np.ones((3, 3))), cv2.dilate(expected, np.ones((3, 3)))
    assert inner.any() and found[inner > 0].all() and not found[outer == 0].any()


def test_a_rectangle_is_its_pixels(tmp_path):
    found = mask_of(tmp_path, shape("rectangle", x=10, y=25, width=40, height=50, rotation=0))
    expected = np.zeros(SIZE, np.uint16)
    expected[10:30, 5:25] = 2
    assert np.array_equal(found, expected)
    # a quarter turn about the top left corner: 20 wide, 10 high -> to the left and down
    found = mask_of(tmp_path, shape("rectangle", x=60, y=25, width=40, height=25, rotation=90))
    expected = np.zeros(SIZE, np.uint16)
    expected[10:30, 20:30] = 2
    agree_up_to_the_border(found, expected)
    assert (found == 2).sum() == 200


def test_a_turned_rectangle_and_ellipse_are_opencvs(tmp_path):
    turn = np.deg2rad(25)
    along, down = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    corner = np.array([20.0, 8.0])
    corners = np.array([corner, corner + 22 * along, corner + 22 * along + 12 * down])
    corners = np.r_[corners, [corner + 12 * down]] - 0.5  # OpenCV counts from pixel centers
    expected = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(expected, [np.rint(corners * 256).astype(np.int32)], 1, shift=8)
    box = shape("rectangle", x=40, y=20, width=44, height=30, rotation=25)
    agree_up_to_the_border(mask_of(tmp_path, box), expected)
    expected = np.zeros(SIZE, np.uint8)
    cv2.ellipse(expected, (24, 19), (18, 8), 30, 0, 360, 1, -1)
    round_ = shape("ellipse", x=49, y=48.75, radiusX=36, radiusY=20, rotation=30)
    agree_up_to_the_border(mask_of(tmp_path, round_), expected)


def test_a_polygon_is_pillows_up_to_its_border(tmp_path):
    percents = [(10.4, 10.2), (88.0, 21.2), (60.6, 50.0), (82.0, 90.5), (19.8, 75.0)]
    canvas = Image.new("L", SIZE[::-1])
    corners = [(x / 2 - 0.5, y * 0.4 - 0.5) for x, y in percents]
    ImageDraw.Draw(canvas).polygon(corners, fill=1)
    found = mask_of(tmp_path, shape("polygon", points=[list(p) for p in percents], closed=True))
    agree_up_to_the_border(found, np.asarray(canvas))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 2**32 - 1), st.booleans())
def test_any_brush_is_decoded(height, width, seed, smooth):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (height, width, 4), np.uint8)
    if smooth:
        values = values // 128 * 255
        values[:, width // 3 :] = 255
    sizes = [int(s) for s in rng.integers(1, 17, 4)]
    code = encoded(values.ravel(), rng, sizes)
    assert np.array_equal(decode_brush(code, (height, width)), values[..., 3])
    if height * width > 1:
        for cut in (0, 3, 5, len(code) // 2, len(code) - 1):
            with pytest.raises(ValueError, match="a brush of|ends early"):
                decode_brush(code[:cut], (height, width))


def test_a_brush_of_the_tool(tmp_path):
    mask = np.zeros((12, 17), bool)
    mask[2:9, 3:11] = True
    mask[4:6, 5:8] = False
    mask[10, ::2] = True
    brush = shape("brush", format="rle", rle=list(bytes.fromhex(CODE)))
    brush |= {"original_width": 17, "original_height": 12}
    found = label_studio.read(written(tmp_path, [task(brush)])).images[0]
    assert found.size == (12, 17) and found.regions[0].pixels.shape == (9, 17)
    assert np.array_equal(draw(found, (12, 17), IDS, 0, 255), mask * np.uint16(2))


def test_a_brush_is_its_pixels_and_the_smaller_is_on_top(tmp_path):
    rng = np.random.default_rng(1)
    rgba = np.zeros((*SIZE, 4), np.uint8)
    rgba[10:20, 10:20, 3] = 255
    rgba[12, 12, 3] = 127  # less than half of the pixel
    brush = shape("brush", format="rle", rle=list(encoded(rgba.ravel(), rng)))
    under = shape("rectangle", "road", x=0, y=0, width=80, height=80, rotation=0)
    expected = np.zeros(SIZE, np.uint16)
    expected[:32, :40] = 1
    expected[rgba[..., 3] >= 128] = 2
    for results in ((brush, under), (under, brush)):
        assert np.array_equal(mask_of(tmp_path, *results), expected)


def test_tasks_and_notes(tmp_path):
    car = shape("rectangle", x=0, y=0, width=50, height=50, rotation=0)
    road = shape("rectangle", "road", x=0, y=0, width=50, height=50, rotation=0)
    several = task(car, number=2, image="b.jpg", updated_at="2024-01-02T00:00:00Z")
    several["annotations"] += [
        {"id": 9, "created_at": "2024-01-01T00:00:00Z", "result": [road]},
        {"id": 10, "was_cancelled": True, "updated_at": "2025-01-01", "result": [road]},
    ]
    late = task(car, number=5, image="e.jpg")
    late["annotations"].append({"id": 8, "result": [road]})
    point = shape("keypoint", x=1, y=2, width=0.5)
    plain = {"type": "choices", "value": {"choices": ["x"]}}
    bare = {"id": 6, "data": {"image": "f.jpg"}, "annotations": [], "predictions": [{}]}
    both = {**car, "value": {**car["value"], "rectanglelabels": ["road", "car"]}}
    tasks = [
        task(point, plain, image="a.jpg"),
        several,
        task({**car, "image_rotation": 90}, number=3, image="c.jpg"),
        task(both, number=4, image="d.jpg"),
        late,
        bare,
    ]
    found = label_studio.read(written(tmp_path, tasks))
    assert [i.path.name for i in found.images] == ["a.jpg", "b.jpg", "d.jpg", "e.jpg"]
    assert [[r.name for r in i.regions] for i in found.images] == [[], ["car"], ["road"], ["road"]]
    assert found.names == ["car", "road"] and found.images[1].size == SIZE
    assert found.notes == [
        "1 shape of kind 'choices' is left out",
        "1 shape of kind 'keypointlabels' is left out",
        "2 tasks with several annotations: the latest is used",
        "1 cancelled annotation left out",
        "1 task without an annotation left out",
        "1 image turned in the tool (image_rotation) left out",
        "1 region with several labels: the first is used",
    ]


def test_labels_of_their_own_tag(tmp_path):
    value = {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 0}
    size = {"original_width": 50, "original_height": 40}
    plain = {"id": "q", "type": "rectangle", "value": value, **size}
    tagged = {"id": "q", "type": "labels", "value": {**value, "labels": ["car"]}, **size}
    for results in ((plain, tagged), (tagged, plain)):
        found = label_studio.read(written(tmp_path, [task(*results)]))
        assert [r.name for r in found.images[0].regions] == ["car"] and not found.notes
    found = label_studio.read(written(tmp_path, [task(plain)]))
    assert found.notes == ["1 region without a class: the pixels are ignored"] and not found.names
    assert (draw(found.images[0], SIZE, IDS, 0, 255)[:20, :25] == 255).all()


def test_images_are_found_by_name(tmp_path):
    images = tmp_path / "photos"
    for name in ("a.jpg", "deep/b c.png", "0a1b2c3d-d.jpg", "x/e.jpg", "y/e.jpg", "twin.jpg"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).touch()
    given = {
        "/data/upload/1/0a1b2c3d-a.jpg": "a.jpg",
        "/data/local-files/?d=set%2Fdeep%2Fb%20c.png": "deep/b c.png",
        "/data/upload/2/0a1b2c3d-d.jpg": "0a1b2c3d-d.jpg",
        "s3://bucket/all/y/e.jpg": "y/e.jpg",
        "https://h.org/q/none.jpg?token=1": "q/none.jpg",
        "https://h.org/plain": "plain",  # the key says that it is an image
        "/data/upload/1/00000001-twin.jpg": "1/00000001-twin.jpg",  # two may be twin.jpg
        "/data/upload/1/00000002-twin.jpg": "1/00000002-twin.jpg",
    }
    path = written(tmp_path, [task(image=name, number=i) for i, name in enumerate(given)])
    found = label_studio.read(path, images).images
    expected = list(given.values())
    assert [i.path.relative_to(images).as_posix() for i in found] == expected


def test_json_min(tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    value = {"x": 10, "y": 25, "width": 40, "height": 50, "rotation": 0}
    old = {"id": 1, "annotation_id": 3, "image": "/data/upload/1/0a1b2c3d-a.png"}
    new = {**old, "annotation_id": 4, "label": [{**value, "rectanglelabels": ["car"]}]}
    old["label"] = [{**value, "rectanglelabels": ["road"]}]
    path = written(tmp_path, [new, old])
    found = label_studio.read(tmp_path)
    assert label_studio.is_ours(path) and len(found.images) == 1
    assert found.images[0].size == SIZE  # of the photograph
    assert (draw(found.images[0], SIZE, IDS, 0, 255)[10:30, 5:25] == 2).all()
    assert found.notes == ["1 task with several annotations: the latest is used"]


def test_whose_file(tmp_path):
    assert label_studio.is_ours(written(tmp_path, [task(shape("polygon", points=[]))]))
    assert label_studio.is_ours(tmp_path)
    for other in ({"images": [], "annotations": []}, [], [1], [{"image": "a.jpg"}]):
        assert not label_studio.is_ours(written(tmp_path, other))
    assert not label_studio.is_ours(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("result", "fault"),
    [
        (shape("polygon", points=[[1, 2], [3, float("nan")]]), "no finite number"),
        (shape("polygon", points=[[1, 2], [3]]), "not enough values"),
        (shape("polygon", points=[[1, 2], [3, None]]), "None is no number"),
        (shape("rectangle", x=1, y=2, height=3), "'width' is missing"),
        (shape("ellipse", x=1, y=2, radiusX="a", radiusY=1), "could not convert"),
        (shape("brush", format="rle", rle=[0, 0, 1]), "a brush of"),
        (shape("brush", format="rle", rle=[256]), "range"),
        (shape("brush", format="png", rle=[1]), "format 'png'"),
    ],
)
def test_damaged_shapes(tmp_path, result, fault):
    with pytest.raises(UserError, match=rf"project\.json, task 1, result 0 .*{fault}") as error:
        label_studio.read(written(tmp_path, [task(result)]))
    assert "\n" not in str(error.value)


def test_damaged_files(tmp_path):
    path = written(tmp_path, [task(shape("rectangle", x=1, y=2, width=3, height=4))])
    text = path.read_text()
    for size in range(0, len(text) - 1, 19):
        path.write_text(text[:size])
        with pytest.raises(UserError, match=r"project\.json, line 1: no JSON"):
            label_studio.read(path)
    for content in ({}, [1], "x", None):
        with pytest.raises(UserError, match="expected a list of tasks"):
            label_studio.read(written(tmp_path, content))
    for wrong, fault in (
        ({"id": 3, "annotations": [{"result": []}]}, "'data' is missing"),
        (task(image=""), "0 images of a task"),
        (task(image="data:image/png;base64,iVBOR/w0.png"), "0 images of a task"),
        ({**task(), "data": {"a": "1.jpg", "b": "2.jpg"}}, "2 images of a task.*: a, b"),
        ({**task(), "annotations": 3}, "not as the format has it"),
        (task(None), "not as the format has it"),
    ):
        with pytest.raises(UserError, match=rf"project\.json, task \d.*{fault}"):
            label_studio.read(written(tmp_path, [wrong]))
    huge = shape("rectangle", x=1, y=2, width=3, height=4) | {"original_width": 1 << 40}
    with pytest.raises(UserError, match="an image of 1099511627776x40 pixels"):
        label_studio.read(written(tmp_path, [task(huge)]))


def bitmask(alpha, label="car", kind="PNG"):
    """As the tool writes it: black on a clear ground, of the whole image."""
    pixels = np.zeros((*alpha.shape, 4), np.uint8)
    pixels[..., 3] = alpha
    stream = io.BytesIO()
    Image.fromarray(pixels).convert("RGBA" if kind == "PNG" else "RGB").save(stream, kind)
    text = base64.b64encode(stream.getvalue()).decode()
    return shape("bitmask", label, imageDataURL=f"data:image/{kind.lower()};base64,{text}")


def test_a_bitmask_is_its_pixels_from_half_on(tmp_path):
    alpha = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
    expected = np.where(alpha >= 128, 2, 0)
    item = bitmask(alpha)
    assert np.array_equal(mask_of(tmp_path, item), expected)
    # a Bitmask with Labels of its own: the class is another result of the same id
    item["value"].pop("bitmasklabels")
    item["type"] = "bitmask"
    value = {"imageDataURL": item["value"]["imageDataURL"], "labels": ["car"]}
    assert np.array_equal(
        mask_of(tmp_path, item, {**item, "type": "labels", "value": value}), expected
    )
    minimal = {"image": "a.jpg", "id": 1, "tag": [{**value, "original_width": 50}]}
    minimal["tag"][0] |= {"original_height": 40, "bitmasklabels": value["labels"]}
    path = written(tmp_path, [minimal], "min.json")
    assert detect(path) == "labelstudio" and label_studio.is_ours(path)
    found = label_studio.read(path)
    assert np.array_equal(draw(found.images[0], SIZE, IDS, 0, 255), expected)


@pytest.mark.parametrize(
    "url, text",
    [
        (bitmask(np.zeros((3, 4), np.uint8))["value"]["imageDataURL"], "a bitmask of 4x3"),
        (bitmask(np.zeros(SIZE, np.uint8))["value"]["imageDataURL"][:90], "as the format has it"),
        (bitmask(np.zeros(SIZE, np.uint8), kind="JPEG")["value"]["imageDataURL"], "data:image/png"),
        ("https://example.com/mask.png", "expected data:image/png;base64,..."),
        ("data:image/png;base64,AAAA", "its bitmap is damaged: no PNG"),
        (None, "as the format has it"),
    ],
)
def test_a_wrong_bitmask_is_one_line(tmp_path, url, text):
    with pytest.raises(UserError, match=re.escape(text)) as caught:
        mask_of(tmp_path, shape("bitmask", imageDataURL=url))
    assert "task 1, result 0 (bitmasklabels): " in str(caught.value)
    assert "\n" not in str(caught.value)
