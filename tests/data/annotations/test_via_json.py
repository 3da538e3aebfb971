"""VIA 2: JSON and CSV, every shape, the class attribute, wrong files."""

import csv
import json
import math

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from cfnseg.data.annotations import via_json
from cfnseg.data.annotations.regions import draw
from cfnseg.errors import UserError

SIZE = (40, 50)
IDS = {"road": 1, "car": 2}
RECT = {"name": "rect", "x": 5, "y": 6, "width": 15, "height": 10}


def region(shape, **values):
    return {"shape_attributes": shape, "region_attributes": values}


def entry(*regions, name="a.jpg", size=99):
    return {f"{name}{size}": {"filename": name, "size": size, "regions": list(regions)}}


def written(folder, content, name="via.json"):
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def table(folder, rows, name="via.csv"):
    """A CSV file as VIA writes it: JSON in quoted fields, a row for each region."""
    path = folder / name
    with path.open("w", newline="") as file:
        print(
            "filename,file_size,file_attributes,region_count,region_id,"
            "region_shape_attributes,region_attributes",
            file=file,
        )
        writer = csv.writer(file)
        for index, (photo, shape, values) in enumerate(rows):
            fields = (json.dumps(shape), json.dumps(values))
            writer.writerow([photo, 99, "{}", int(bool(shape)), index, *fields])
    return path


def mask_of(folder, *regions):
    found = via_json.read(written(folder, entry(*regions)))
    return draw(found.images[0], SIZE, IDS, 0, 255)


def agree_up_to_the_border(found, expected):
    expected = expected.astype(np.uint8)
    inner, outer = cv2.erode(expected, np.ones((3, 3))), cv2.dilate(expected, np.ones((3, 3)))
    assert inner.any() and found[inner > 0].all() and not found[outer == 0].any()


def test_a_rect_is_its_pixels_and_the_smaller_is_on_top(tmp_path):
    large = {"name": "rect", "x": 0, "y": 0, "width": 30, "height": 30}
    expected = np.zeros(SIZE, np.uint16)
    expected[:30, :30] = 1
    expected[6:16, 5:20] = 2
    two = region(RECT, label="car"), region(large, label="road")
    assert np.array_equal(mask_of(tmp_path, *two), expected)
    assert np.array_equal(mask_of(tmp_path, *two[::-1]), expected)


def test_a_polygon_is_pillows_up_to_its_border(tmp_path):
    across, down = [5, 44, 30, 41, 9], [4, 8, 20, 36, 30]
    canvas = Image.new("L", SIZE[::-1])
    ImageDraw.Draw(canvas).polygon([(x - 0.5, y - 0.5) for x, y in zip(across, down)], fill=1)
    shape = {"name": "polygon", "all_points_x": across, "all_points_y": down}
    agree_up_to_the_border(mask_of(tmp_path, region(shape, label="car")), np.asarray(canvas))


def test_circles_and_ellipses_are_opencvs(tmp_path):
    expected = np.zeros(SIZE, np.uint8)
    cv2.circle(expected, (24, 19), 12, 1, -1)
    shape = {"name": "circle", "cx": 24.5, "cy": 19.5, "r": 12}
    agree_up_to_the_border(mask_of(tmp_path, region(shape, label="car")), expected)
    expected = np.zeros(SIZE, np.uint8)
    cv2.ellipse(expected, (24, 19), (18, 8), 30, 0, 360, 1, -1)
    turn = math.radians(30)
    shape = {"name": "ellipse", "cx": 24.5, "cy": 19.5, "rx": 18, "ry": 8, "theta": turn}
    agree_up_to_the_border(mask_of(tmp_path, region(shape, label="car")), expected)


def test_a_project(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    kinds = {"type": "checkbox", "options": {"road": "", "car": "", "sky": ""}}
    project = {
        "_via_settings": {"core": {"default_filepath": "photos/"}, "project": {"name": "x"}},
        "_via_img_metadata": {
            **entry(
                region(RECT, type={"car": True, "road": False}),
                region(RECT, type={"car": True, "road": True}),
                region(RECT, type={}),
                region(RECT, type={"tree": True}),
            ),
            **entry(name="https://h.org/b.jpg"),
        },
        "_via_attributes": {"region": {"type": kinds}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": ["a.jpg99"],
    }
    path = written(tmp_path, project)
    found = via_json.read(path)
    assert via_json.is_ours(path) and found.names == ["road", "car", "sky", "tree"]
    assert found.images[0].path == tmp_path / "photos" / "a.jpg"
    assert found.images[1].path.name == "b.jpg" and not found.images[1].regions
    assert [r.name for r in found.images[0].regions] == ["car", "car", "", "tree"]
    assert found.notes == [
        "1 region without a class: the pixels are ignored",
        "1 region with several classes: the first is used",
    ]


def test_csv_says_the_same_as_json(tmp_path):
    shapes = [
        (RECT, {"label": 'a "b", c'}),
        ({"name": "polygon", "all_points_x": [0, 9.5, 4] * 9999, "all_points_y": [0] * 29997}, {}),
        ({"name": "polyline", "all_points_x": [1, 2], "all_points_y": [1, 2]}, {"label": "car"}),
    ]
    rows = [("a.jpg", *pair) for pair in shapes] + [("b.jpg", {}, {})]
    (tmp_path / "other").mkdir()
    one = via_json.read(table(tmp_path / "other", rows))
    assert via_json.is_ours(tmp_path / "other")
    both = entry(*[region(shape, **values) for shape, values in shapes]) | entry(name="b.jpg")
    two = via_json.read(written(tmp_path, both))
    assert one.names == two.names == ['a "b", c']
    assert one.notes == two.notes and one.notes[0] == "1 polyline has no area"
    assert [i.path.name for i in one.images] == [i.path.name for i in two.images]
    for first, second in zip(one.images, two.images):
        assert len(first.regions) == len(second.regions)
        for x, y in zip(first.regions, second.regions):
            assert np.array_equal(x.polygons[0], y.polygons[0]) and x.name == y.name


def test_the_class_attribute(tmp_path):
    def names(**values):
        return via_json.read(written(tmp_path, entry(region(RECT, **values)))).names

    assert names(species="cat") == ["cat"]
    assert names(quality="good", Class="cat") == ["cat"]
    for values in ({"name": "Plato", "type": "human"}, {"quality": "good", "species": "cat"}):
        with pytest.raises(UserError, match=rf"There are {', '.join(values)}; expected one"):
            names(**values)
    assert names() == ["object"]
    found = via_json.read(tmp_path / "via.json")
    assert found.notes == ["no region has an attribute: all are of the class 'object'"]


def test_regions_of_version_1_are_a_dict(tmp_path):
    data = entry()
    data["a.jpg99"]["regions"] = {"0": region(RECT, label="car")}
    found = via_json.read(written(tmp_path, data))
    assert [r.name for r in found.images[0].regions] == ["car"]


def test_images_of_one_name(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        (tmp_path / "photos" / folder / "1.jpg").touch()
    path = written(tmp_path, entry(name="x/1.jpg") | entry(name="y/1.jpg") | entry(name="1.jpg"))
    found = via_json.read(path, tmp_path / "photos").images
    assert [i.path.relative_to(tmp_path / "photos").as_posix() for i in found] == [
        "x/1.jpg",
        "y/1.jpg",
        "1.jpg",  # of which folder? It stays missing
    ]


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        ({"name": "rect", "x": 1, "y": 2, "width": 3}, "'height' is missing"),
        ({**RECT, "x": float("inf")}, "no finite number"),
        ({**RECT, "x": None}, "None is no number"),
        ({"name": "circle", "cx": 1, "cy": [2], "r": 3}, "is no number"),
        ({"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1]}, "2 x and 1 y"),
        ({"name": "polygon", "all_points_x": 3, "all_points_y": 4}, "not as the format has it"),
        ({"x": 3}, "'name' is missing"),
    ],
)
def test_damaged_regions(tmp_path, shape, fault):
    place = rf"via\.json, image a\.jpg99, region 0 .*{fault}"
    with pytest.raises(UserError, match=place) as error:
        via_json.read(written(tmp_path, entry(region(shape, label="car"))))
    assert "\n" not in str(error.value)


def test_damaged_files(tmp_path):
    path = written(tmp_path, entry(region(RECT, label="car")))
    text = path.read_text()
    for size in range(0, len(text) - 1, 11):
        path.write_text(text[:size])
        with pytest.raises(UserError, match=r"via\.json, line 1: no JSON"):
            via_json.read(path)
    for content, fault in (
        ([], "expected images by key"),
        ({"a": 3}, "image a: not as the format has it"),
        ({"a": {"regions": []}}, "'filename' is missing"),
        ({"a": {"filename": "", "regions": []}}, "'' is no file name"),
        ({"a": {"filename": "x", "regions": [3]}}, "not as the format has it"),
        ({"_via_img_metadata": {}, "_via_attributes": 3}, "settings: not as the format has it"),
    ):
        with pytest.raises(UserError, match=rf"via\.json.*{fault}"):
            via_json.read(written(tmp_path, content))
    path = table(tmp_path, [("a.jpg", RECT, {"label": "car"})])
    text = path.read_text()
    for size in range(text.index("\n") + 20, len(text) - 4, 7):
        path.write_text(text[:size])
        with pytest.raises(UserError, match=r"via\.csv, line 2"):
            via_json.read(path)
    path.write_text("filename,region_attributes\n")
    with pytest.raises(UserError, match="no column region_shape_attributes"):
        via_json.read(path)
    assert not via_json.is_ours(path)
