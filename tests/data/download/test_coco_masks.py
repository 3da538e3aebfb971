"""COCO's annotations drawn as masks, against pycocotools' own masks and torchvision's way of drawing VOC's classes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from cfnseg.data.dataset import open_dataset, read_sample, read_truth
from cfnseg.data.download.coco_masks import AS_VOC, convert, draw, label_map
from cfnseg.data.formats import voc
from cfnseg.errors import UserError

SIZE = (40, 50)
THINGS = [{"id": i, "name": n} for i, n in enumerate(AS_VOC, 1)] + [
    {"id": 47, "name": "cup"},
    {"id": 90, "name": "toothbrush"},
]
STUFF = [
    {"id": 92, "name": "banner"},
    {"id": 157, "name": "sky-other"},
    {"id": 182, "name": "wood"},
    {"id": 183, "name": "other"},
]


def box(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def runs(x0, y0, x1, y1, packed=False):
    """The same box as run lengths, as crowds (not packed) and stuff (packed) have them."""
    mask = np.zeros(SIZE, np.uint8)
    mask[y0:y1, x0:x1] = 1
    if packed:
        code = rle.encode(np.asfortranarray(mask))
        return {"size": list(SIZE), "counts": code["counts"].decode()}
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    return {"size": list(SIZE), "counts": np.diff(np.concatenate([[0], edges])).tolist()}


def drawn_alone(a):
    seg = a["segmentation"]
    code = (
        rle.merge(rle.frPyObjects(seg, *SIZE))
        if isinstance(seg, list)
        else rle.frPyObjects(seg, *SIZE)
    )
    return rle.decode(code)


def annotation(number, category, segmentation, image=7, crowd=0):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": crowd,
        "area": 1.0,
        "bbox": [0, 0, 1, 1],
    }


OBJECTS = [
    annotation(1, 15, box(5, 5, 12, 30)),  # a person
    annotation(
        2, 11, [*box(2, 20, 30, 38), *box(33, 20, 36, 38)]
    ),  # a table of two parts, larger and later: below the person
    annotation(3, 47, box(20, 22, 24, 26)),  # a cup on it
    annotation(4, 15, runs(8, 0, 45, 10), crowd=1),  # a crowd, larger and later: below the person
]
GROUND = [
    annotation(11, 157, runs(0, 0, 50, 15, packed=True)),
    annotation(12, 182, runs(0, 15, 50, 36, packed=True)),
    annotation(13, 183, runs(2, 2, 30, 38, packed=True)),
]


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Two images in train and one in val, one of them without annotations."""
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    for split, numbers in (("train", (7, 9)), ("val", (7,))):
        (root / f"{split}2017").mkdir()
        images = [
            {"id": n, "file_name": f"{n:012d}.jpg", "height": SIZE[0], "width": SIZE[1]}
            for n in numbers
        ]
        for image in images:
            Image.new("RGB", SIZE[::-1]).save(root / f"{split}2017" / image["file_name"])
        for kind, categories, found in (("instances", THINGS, OBJECTS), ("stuff", STUFF, GROUND)):
            path = root / "annotations" / f"{kind}_{split}2017.json"
            path.write_text(
                json.dumps({"images": images, "categories": categories, "annotations": found})
            )
    for name, split in (
        ("coco", "train"),
        ("coco", "val"),
        ("coco_voc", "train"),
        ("coco_stuff", "train"),
    ):
        convert(root, split, name)
    return root


def raw(root, name, number=7, split="train"):
    with Image.open(root / "masks" / name / f"{split}2017" / f"{number:012d}.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[45:48] == list(voc.color(15))
        return np.asarray(image)


def test_each_category_is_what_pycocotools_draws(coco, capsys):
    own = COCO(str(coco / "annotations" / "instances_train2017.json"))
    mask = raw(coco, "coco")
    person, table, cup, crowd = (own.annToMask(a) == 1 for a in own.anns.values())
    assert np.array_equal(mask == 15, person)
    assert np.array_equal(mask == 47, cup)
    assert np.array_equal(mask == 11, table & ~person & ~cup)
    assert np.array_equal(mask == 255, crowd & ~person)
    assert np.array_equal(mask == 0, ~(person | table | cup | crowd))
    assert (raw(coco, "coco", 9) == 0).all()


def test_voc_classes_as_torchvision_draws_them(coco):
    mask = raw(coco, "coco_voc")
    chosen = [a for a in OBJECTS if a["category_id"] <= 20]
    shapes = np.stack([drawn_alone(a) for a in chosen])
    theirs = (shapes * np.array([a["category_id"] for a in chosen])[:, None, None]).max(0)
    sure = (shapes.sum(0) < 2) & (
        shapes[-1] == 0
    )  # they ignore overlaps, and take crowds for objects
    assert np.array_equal(mask[sure], theirs[sure])
    assert set(np.unique(mask)) == {0, 11, 15, 255}
    assert mask[24, 22] == 11  # the cup is no class of VOC's, and what it lies on shows
    assert open_dataset("coco_voc", str(coco), "train").labels == voc.LABELS


def test_stuff_lies_below_things_and_other_is_ignored(coco):
    mask, things = raw(coco, "coco_stuff"), raw(coco, "coco")
    assert np.array_equal(mask[things > 0], things[things > 0])
    below = np.full(SIZE, 255)
    below[:15], below[15:36] = 157, 182
    assert np.array_equal(mask[things == 0], below[things == 0])
    data = open_dataset("coco_stuff", str(coco), "train")
    assert data.labels.names == [*AS_VOC, "cup", "toothbrush", "banner", "sky-other", "wood"]
    assert (read_truth(data, 1) == 255).all()


def test_the_data_sets(coco):
    data = open_dataset("coco", str(coco), "train")
    assert data.names == ["000000000007", "000000000009"]
    assert data.labels.names[:2] == ["background", "airplane"]
    image, truth = read_sample(data, 0)
    assert image.shape == (*SIZE, 3)
    assert np.array_equal(data.labels.decode(truth), raw(coco, "coco"))
    assert len(open_dataset("coco", str(coco), "val").names) == 1


def test_masks_that_are_there_are_left_alone(coco):
    first = coco / "masks" / "coco" / "val2017" / f"{7:012d}.png"
    before = first.stat().st_mtime_ns
    convert(coco, "val", "coco")
    assert first.stat().st_mtime_ns == before


def test_all_of_cocos_classes():
    things = [
        {"id": i, "name": f"thing {i}"}
        for i in range(1, 91)
        if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
    ]
    stuff = [{"id": i, "name": f"stuff {i}"} for i in range(92, 184)]
    assert len(label_map("coco", things)[0]) == 81
    assert len(label_map("coco_stuff", things + stuff)[0]) == 171


boxes = st.tuples(
    st.integers(0, 40), st.integers(0, 30), st.integers(1, 10), st.integers(1, 10)
).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([15, 11, 47, 90, 92, 157]), boxes, st.booleans()), max_size=6
    ),
    st.randoms(),
)
def test_order_in_the_file_does_not_matter(parts, random):
    """The smaller object wins every pixel that it covers; stuff never covers an object."""
    found = [
        annotation(i, c, box(*b), crowd=int(crowd and c < 92))
        for i, (c, b, crowd) in enumerate(parts)
    ]
    ids = {c: c for c in (15, 11, 47, 90, 92, 157)}
    areas = [int(drawn_alone(a).sum()) for a in found]
    mask = draw(found, SIZE, ids, 0)
    for a, area in zip(found, areas):
        if (
            a["category_id"] < 92
            and not a["iscrowd"]
            and all(area < other for b, other in zip(found, areas) if b is not a)
        ):
            assert (mask[drawn_alone(a) == 1] == a["category_id"]).all()
    if len(set(areas)) == len(areas):
        assert np.array_equal(draw(random.sample(found, len(found)), SIZE, ids, 0), mask)


def test_what_is_missing(coco, tmp_path):
    with pytest.raises(
        UserError,
        match=r"images of split 'train' not found at .*train2017.*cfnseg prepare coco --root",
    ):
        open_dataset("coco", str(tmp_path), "train")
    with pytest.raises(
        UserError,
        match=r"COCO's stuff not found at .*stuff_train2017\.json.* has instances_train2017\.json",
    ):
        (tmp_path / "annotations").mkdir()
        (tmp_path / "annotations" / "instances_train2017.json").write_text("{}")
        convert(tmp_path, "train", "coco_stuff")
    with pytest.raises(UserError, match="these are not COCO's categories"):
        convert(tmp_path, "train", "coco")
    (tmp_path / "annotations" / "instances_train2017.json").write_text("<html>")
    with pytest.raises(UserError, match=r"instances_train2017\.json: no COCO annotations"):
        convert(tmp_path, "train", "coco")
    (tmp_path / "images").symlink_to(coco)  # images/train2017, as some lay it out
    with pytest.raises(UserError, match=r"coco masks of split 'train' not found"):
        open_dataset("coco", str(tmp_path), "train")
    (tmp_path / "masks" / "coco" / "train2017").mkdir(parents=True)
    (tmp_path / "masks" / "coco" / "labels.json").write_text(
        (coco / "masks" / "coco" / "labels.json").read_text()
    )
    with pytest.raises(UserError, match="2 of 2 images in .* have no mask"):
        open_dataset("coco", str(tmp_path), "train")


def test_annotations_that_cannot_be_drawn(coco, tmp_path):
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "instances_val2017.json"
    known = json.loads((coco / "annotations" / path.name).read_text())
    known["annotations"][0]["segmentation"] = {"size": list(SIZE)}
    path.write_text(json.dumps(known))
    with pytest.raises(
        UserError,
        match=r"instances_val2017\.json: the annotations of 000000000007 cannot be drawn \(KeyError: 'counts'\)",
    ):
        convert(tmp_path, "val", "coco")
