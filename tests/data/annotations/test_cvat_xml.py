"""CVAT's XML: every shape, drawing order, subsets, video, and files that are wrong."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from cfnseg.data.annotations import cvat_xml
from cfnseg.data.annotations.regions import draw
from cfnseg.errors import UserError

SIZE = (40, 50)
IDS = {"road": 1, "car": 2}
META = """<version>1.1</version><meta><task><id>4</id><size>2</size><labels>
<label><name>road</name><color>#8040ff</color><type>any</type><attributes></attributes></label>
<label><name>car</name><color>#0a0b0c</color><attributes></attributes></label>
<label><name>body</name><type>skeleton</type></label>
<label><name>1</name><type>points</type><parent>body</parent></label>
</labels><original_size><width>50</width><height>40</height></original_size></task></meta>"""


def written(folder, content, meta=META):
    path = folder / "annotations.xml"
    path.write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{meta}{content}</annotations>',
        encoding="utf-8",
    )
    return path


def image(shapes, name="a.jpg", more=""):
    return f'<image id="0" name="{name}" width="50" height="40" {more}>{shapes}</image>'


def mask_of(folder, shapes):
    found = cvat_xml.read(written(folder, image(shapes)))
    return draw(found.images[0], SIZE, IDS, 0, 255)


def agree_up_to_the_border(found, expected):
    expected = expected.astype(np.uint8)
    inner, outer = cv2.erode(expected, np.ones((3, 3))), cv2.dilate(expected, np.ones((3, 3)))
    assert inner.any() and found[inner > 0].all() and not found[outer == 0].any()


def runs(mask):
    """CVAT's run lengths of a mask, outside first."""
    flat = np.r_[False, mask.ravel()]
    edges = np.flatnonzero(np.diff(flat.astype(int)))
    return ", ".join(map(str, np.diff(np.r_[0, edges, mask.size])))


def test_classes_colours_sizes(tmp_path):
    found = cvat_xml.read(written(tmp_path, image("")))
    assert found.names == ["road", "car"] and found.background == "background"
    assert found.colors == {"road": (128, 64, 255), "car": (10, 11, 12)}
    assert found.images[0].size == SIZE and not found.images[0].regions and not found.notes
    assert cvat_xml.is_ours(tmp_path) and cvat_xml.is_ours(tmp_path / "annotations.xml")
    (tmp_path / "voc.xml").write_text("<annotation><folder>x</folder></annotation>")
    assert not cvat_xml.is_ours(tmp_path / "voc.xml")
    assert not cvat_xml.is_ours(tmp_path / "missing.xml")


def test_a_box_is_its_pixels(tmp_path):
    shape = '<box label="car" xtl="5.0" ytl="6" xbr="20" ybr="16" z_order="0"></box>'
    expected = np.zeros(SIZE, np.uint16)
    expected[6:16, 5:20] = 2
    assert np.array_equal(mask_of(tmp_path, shape), expected)
    quarter = shape.replace("<box ", '<box rotation="90.0" ')  # 15x10 becomes 10x15
    expected = np.zeros(SIZE, np.uint16)
    expected[4:18, 8:17] = 2
    found = mask_of(tmp_path, quarter)
    assert (found[expected == 2] == 2).all() and abs(int((found == 2).sum()) - 150) < 20


def test_a_turned_box_and_ellipse_are_opencvs(tmp_path):
    expected = np.zeros(SIZE, np.uint8)
    corners = cv2.boxPoints(((24.5, 19.5), (30, 12), 30))  # OpenCV counts from pixel centers
    cv2.fillPoly(expected, [np.rint(corners * 256).astype(np.int32)], 1, shift=8)
    shape = '<box label="road" xtl="10" ytl="14" xbr="40" ybr="26" rotation="30" z_order="0"/>'
    agree_up_to_the_border(mask_of(tmp_path, shape), expected)
    expected = np.zeros(SIZE, np.uint8)
    cv2.ellipse(expected, (24, 19), (18, 8), 30, 0, 360, 1, -1)
    shape = '<ellipse label="road" cx="24.5" cy="19.5" rx="18" ry="8" rotation="30" z_order="0"/>'
    agree_up_to_the_border(mask_of(tmp_path, shape), expected)


def test_a_polygon_is_pillows_up_to_its_border(tmp_path):
    corners = [(5.2, 4.1), (44.0, 8.5), (30.3, 20.0), (41.0, 36.2), (9.9, 30.0)]
    canvas = Image.new("L", SIZE[::-1])
    ImageDraw.Draw(canvas).polygon([(x - 0.5, y - 0.5) for x, y in corners], fill=1)
    text = ";".join(f"{x:.2f},{y:.2f}" for x, y in corners)
    found = mask_of(tmp_path, f'<polygon label="road" points="{text}" z_order="0"></polygon>')
    agree_up_to_the_border(found, np.asarray(canvas))


@pytest.mark.parametrize("first", [False, True])
def test_a_mask_is_its_pixels(tmp_path, first):
    pixels = np.random.default_rng(3).random((7, 9)) < 0.5
    pixels[2:4, 3:5] = False  # a hole
    pixels[0, 0] = first
    shape = (
        f'<mask label="car" source="manual" occluded="0" rle="{runs(pixels)}" left="45" top="3" '
        'width="9" height="7" z_order="0"></mask>'
    )
    expected = np.zeros((40, 60), np.uint16)
    expected[3:10, 45:54][pixels] = 2
    assert np.array_equal(mask_of(tmp_path, shape), expected[:, :50])


@pytest.mark.parametrize(("z", "top"), [((0, 1), 2), ((1, 0), 1), ((0, 0), 2)])
def test_the_drawing_order(tmp_path, z, top):
    car = f'<box label="car" xtl="10" ytl="10" xbr="15" ybr="15" z_order="{z[1]}"/>'
    road = f'<box label="road" xtl="0" ytl="0" xbr="30" ybr="30" z_order="{z[0]}"/>'
    for shapes in (car + road, road + car):  # of equal ones the smaller is on top
        assert mask_of(tmp_path, shapes)[12, 12] == top


def test_subsets_and_folders(tmp_path):
    folder = tmp_path / "images"
    for name in ("x/1.jpg", "y/1.jpg", "Train/only.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    path = written(
        tmp_path,
        image("", "x/1.jpg", 'subset="Train"')
        + image("", "y/1.jpg", 'subset="Validation"')
        + image("", "only.jpg", 'subset="Train"')
        + image("", "gone.jpg", 'subset="default"')
        + image("", "far.jpg", 'subset="fold 1"'),
    )
    found = cvat_xml.read(path).images
    assert [i.split for i in found] == ["train", "val", "train", "", "fold 1"]
    assert [i.path.relative_to(folder).as_posix() for i in found] == [
        "x/1.jpg",
        "y/1.jpg",
        "Train/only.jpg",
        "gone.jpg",
        "far.jpg",
    ]
    (folder / "frame_000007.PNG").touch()  # a video's frame in an export for images
    frame = cvat_xml.read(written(tmp_path, image("", "frame_000007"))).images[0]
    assert frame.path == folder / "frame_000007.PNG"
    path = written(
        tmp_path, "".join(image("", name) for name in ("x/1.jpg", "y/1.jpg", "only.jpg"))
    )
    other = tmp_path / "other"
    (other / "deep").mkdir(parents=True)
    (other / "deep/only.jpg").touch()
    (other / "deep/1.jpg").touch()  # of which folder?
    found = cvat_xml.read(path, other).images
    assert found[2].path == other / "deep/only.jpg" and found[0].path == other / "x/1.jpg"


def test_what_has_no_area_is_counted(tmp_path):
    line = '<polyline label="road" points="1,2;3,4" z_order="0"/>'
    more = '<points label="car" points="1,2"/><tag label="car"/><cuboid label="car"/><new/>'
    found = cvat_xml.read(written(tmp_path, image(line * 3 + more)))
    assert found.notes == [
        "1 shape of kind 'cuboid' is left out",
        "1 shape of kind 'new' is left out",
        "1 point has no area",
        "3 polylines have no area",
        "1 tag has no area",
    ]
    assert not found.images[0].regions


def track(shapes, label="car"):
    return f'<track id="0" label="{label}" source="manual">{shapes}</track>'


def frame(number, outside=0, x=5):
    return (
        f'<box frame="{number}" keyframe="1" outside="{outside}" occluded="0" xtl="{x}" ytl="5" '
        f'xbr="{x + 10}" ybr="15" z_order="0"></box>'
    )


def test_a_video(tmp_path):
    path = written(tmp_path, track(frame(0) + frame(1, 1)) + track(frame(2, x=30), "road"))
    with pytest.raises(UserError, match=r"annotations\.xml: a video's annotation, and no image"):
        cvat_xml.read(path)
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        (folder / f"frame_{index:06d}.PNG").touch()
    found = cvat_xml.read(path)
    assert [i.path.name for i in found.images] == ["frame_000000.PNG", "frame_000002.PNG"]
    assert found.images[0].size == SIZE and found.notes == ["1 frame without a shape left out"]
    expected = np.zeros(SIZE, np.uint16)
    expected[5:15, 30:40] = 1
    assert np.array_equal(draw(found.images[1], SIZE, IDS, 0, 255), expected)
    (folder / "frame_000002.PNG").unlink()
    with pytest.raises(UserError, match="1 frame of the video without an image file, first.* 2"):
        cvat_xml.read(path)


def test_a_videos_frames_by_order(tmp_path):
    path = written(tmp_path, track(frame(1)))  # its meta says 2 frames
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / name).touch()
    assert [i.path.name for i in cvat_xml.read(path).images] == ["b.jpg"]
    (tmp_path / "c.jpg").touch()
    with pytest.raises(UserError, match="no image files of its frames"):
        cvat_xml.read(path)


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        ('<box label="car" xtl="nan" ytl="1" xbr="2" ybr="3"/>', "no finite number"),
        ('<box label="car" xtl="1" ytl="1" xbr="2"/>', "'ybr' is missing"),
        ('<box xtl="1" ytl="1" xbr="2" ybr="3"/>', "no label"),
        ('<polygon label="car" points="1,2;3"/>', "not enough values"),
        ('<polygon label="car" points="1,2;3,x;5,6"/>', "could not convert"),
        ('<mask label="car" rle="1,2" left="0" top="0" width="2" height="2"/>', "3 of 2x2"),
        ('<mask label="car" rle="5,-1" left="0" top="0" width="2" height="2"/>', "4 of 2x2"),
        ('<mask label="car" rle="1" left="0" top="0" width="999999" height="999999"/>', "a mask"),
    ],
)
def test_damaged_shapes(tmp_path, shape, fault):
    with pytest.raises(UserError, match=rf"annotations\.xml, image a\.jpg, shape 0.*{fault}") as e:
        cvat_xml.read(written(tmp_path, image(shape)))
    assert "\n" not in str(e.value)


def test_damaged_files(tmp_path):
    path = written(tmp_path, image(""))
    whole = path.read_text()
    for size in range(0, len(whole) - 1, 17):
        path.write_text(whole[:size])
        with pytest.raises(UserError, match=r"annotations\.xml") as error:
            cvat_xml.read(path)
        assert "\n" not in str(error.value)
    path.write_text("<annotation/>")
    with pytest.raises(UserError, match="expected <annotations>"):
        cvat_xml.read(path)
    with pytest.raises(UserError, match="image a.jpg: 'height' is missing"):
        cvat_xml.read(written(tmp_path, '<image name="a.jpg" width="3"/>'))
    with pytest.raises(UserError, match="none.xml"):
        cvat_xml.read(tmp_path / "none.xml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="0 annotation files"):
        cvat_xml.read(tmp_path / "empty")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(tmp_path, encoding):
    path = tmp_path / "annotations.xml"
    path.write_text(
        '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><annotations>&b;</annotations>',
        encoding=encoding,
    )
    with pytest.raises(UserError, match="a document type definition"):
        cvat_xml.read(path)
