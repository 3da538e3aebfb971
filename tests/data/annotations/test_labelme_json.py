"""LabelMe JSON: masks equal Pillow's drawing, and what is wrong is one line."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cfnseg.data.annotations.labelme_json import read
from cfnseg.data.annotations.regions import draw
from cfnseg.errors import UserError

H, W = 60, 80
IDS = {"a": 1, "b": 2, "c": 3}


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def shape(label, points, kind="polygon", **more):
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "shape_type": kind,
        "flags": {},
        **more,
    }


def written(folder, *shapes, name="x", **more):
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{name}.jpg",
        "imageData": None,
        "imageHeight": H,
        "imageWidth": W,
        **more,
    }
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / f"{name}.json"


def test_shapes_are_those_that_pillow_draws(tmp_path):
    dots = np.random.default_rng(0).random((9, 12)) < 0.5
    polygon = [[10.0, 8.0], [40.0, 12.0], [36.0, 50.0], [9.0, 44.0]]
    path = written(
        tmp_path,
        shape("a", polygon),
        shape("b", [[70, 40], [50, 20]], "rectangle"),
        shape("c", [[30, 30], [30, 40]], "circle", group_id=3),
        shape("b", [[3, 50], [14, 58]], "mask", mask=png(dots)),
    )
    found = draw(read(path).images[0], (H, W), IDS, 0, 255)

    times = (
        8  # Pillow counts pixels whose centre it does not test; at 8 times the size that is small
    )
    large = Image.new("L", (W * times, H * times))
    drawing = ImageDraw.Draw(large)
    drawing.polygon([(x * times, y * times) for x, y in polygon], 1)
    drawing.rectangle([50 * times, 20 * times, 70 * times - 1, 40 * times - 1], 2)
    drawing.ellipse([20 * times, 20 * times, 40 * times, 40 * times], 3)
    expected = np.asarray(large)[times // 2 :: times, times // 2 :: times].copy()
    expected[50:59, 3:15][dots] = 2
    wrong = found != expected
    border = sum((np.roll(expected, n, axis) != expected) for n in (-1, 1) for axis in (0, 1)) > 0
    assert not (wrong & ~border).any() and wrong.sum() < 40
    assert np.array_equal(found[20:40, 50:70], np.full((20, 20), 2))
    assert np.array_equal(found[50:59, 3:15] == 2, dots)


def test_a_later_shape_is_on_top(tmp_path):
    small, large = (
        shape("a", [[20, 20], [30, 30]], "rectangle"),
        shape("b", [[5, 5], [50, 50]], "rectangle"),
    )
    masks = [
        draw(read(written(tmp_path, *shapes)).images[0], (H, W), IDS, 0, 255)
        for shapes in ((small, large), (large, small))
    ]
    assert masks[0][25, 25] == 2 and masks[1][25, 25] == 1


def test_names_and_what_has_no_area(tmp_path):
    (tmp_path / "deep" / "val").mkdir(parents=True)
    box = [[2, 2], [9, 9]]
    written(tmp_path, shape("z", box, "rectangle"), shape("p", [[4, 4]], "point"))
    written(
        tmp_path / "deep" / "val",
        shape("__ignore__", box, "rectangle"),
        shape("_background_", [[1, 1], [5, 5]], "line"),
        shape("_background_", [[1, 1], [5, 5]], "rectangle"),
        shape("a", [[1, 1], [5, 5]]),
        name="y",
        imageHeight=None,
    )
    (tmp_path / "other.json").write_text("{}")
    found = read(tmp_path)
    assert found.names == ["_background_", "z"] and found.background == "_background_"
    assert [image.split for image in found.images] == ["val", ""]
    assert [image.size for image in found.images] == [None, (H, W)]
    mask = draw(found.images[0], (H, W), {"_background_": 0}, 0, 255)
    assert mask[7, 7] == 255 and mask[3, 3] == 0
    text = "\n".join(found.notes)
    for part in ("other.json has no shapes", "1 shapes of type point", "line", "fewer than 3"):
        assert part in text
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nz\nunused\n")
    assert read(tmp_path).names == ["_background_", "z", "unused"]


def test_where_the_photograph_is(tmp_path):
    (tmp_path / "json").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.jpg").touch()
    path = written(
        tmp_path / "json", imagePath="..\\photos\\x.jpg", imageData=png(np.zeros((H, W), np.uint8))
    )
    image = read(path).images[0]
    assert image.path.resolve() == tmp_path / "photos" / "x.jpg"
    assert image.embedded().startswith(b"\x89PNG")
    written(tmp_path / "json", imagePath="C:\\me\\x.jpg")
    assert read(path, tmp_path / "photos").images[0].path == tmp_path / "photos" / "x.jpg"


@pytest.mark.parametrize(
    "change, part",
    [
        (lambda text: text[:200], "no JSON"),
        (lambda text: '{"shapes": 3}', "'shapes' is int"),
        (lambda text: text.replace("7.5", '"x"'), "shape 1: expected points"),
        (lambda text: text.replace('"label": "a", ', ""), "shape 1: 'label' is nothing"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, change, part):
    path = written(tmp_path, shape("a", [[1, 1], [7.5, 2], [3, 9]]))
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError) as error:
        read(path)
    assert part in str(error.value) and str(path) in str(error.value)


def test_a_damaged_mask_is_one_line(tmp_path):
    path = written(tmp_path, shape("a", [[1, 1], [5, 5]], "mask", mask="aGVsbG8="))
    with pytest.raises(UserError, match="shape 1: damaged mask"):
        list(read(path).images[0].regions)
