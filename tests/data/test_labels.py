"""Raw ids to train ids and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cfnseg.data.formats import camvid, cityscapes, voc
from cfnseg.data.labels import Label, LabelMap, read_classes
from cfnseg.errors import UserError


@given(
    st.lists(st.integers(0, 254), min_size=1, max_size=30, unique=True), st.integers(0, 2**32 - 1)
)
def test_decode_inverts_encode(ids, seed):
    labels = LabelMap(Label(i, str(i), (i, 0, 0)) for i in ids)
    mask = np.random.default_rng(seed).choice([*ids, 255], (6, 7)).astype(np.uint8)
    train = labels.encode(mask)
    assert set(np.unique(train)) <= {*range(len(ids)), 255}
    assert np.array_equal(labels.decode(train), mask)


@given(
    st.lists(st.integers(0, 255), min_size=4, max_size=30, unique=True), st.integers(0, 2**32 - 1)
)
def test_counts_by_raw_ids_become_counts_by_train_ids(ids, seed):
    unknown, first, second, *rest = ids
    labels = LabelMap([Label(i, str(i), (0, 0, 0)) for i in rest], ignore=(first, second, first))
    masks = np.random.default_rng(seed).choice([first, second, *rest], (2, 50))
    raw = np.zeros((256, 256), np.int64)
    np.add.at(raw, tuple(masks), 1)
    true, predicted = (labels.encode(mask.astype(np.uint8)) for mask in masks)
    expected = np.zeros((len(rest), len(rest) + 1), np.int64)
    counted = true != 255
    np.add.at(expected, (true[counted], np.minimum(predicted[counted], len(rest))), 1)
    assert np.array_equal(labels.encode_counts(raw), expected)
    for place in ((unknown, first), (rest[0], unknown)):
        strange = raw.copy()
        strange[place] = 1
        assert labels.encode_counts(strange) is None


def test_unknown_ids_are_named_with_their_pixels():
    mask = np.array([[0, 1, 77], [77, 77, 9]], np.uint8)
    with pytest.raises(UserError, match=r"m\.png: unknown label id 9 \(1 px\), id 77 \(3 px\)"):
        LabelMap([Label(0, "a", (0, 0, 0)), Label(1, "b", (0, 0, 0))]).encode(mask, "m.png")


@pytest.mark.parametrize("ids", [[0, 0], [255], [300]])
def test_impossible_ids(ids):
    with pytest.raises(ValueError, match="labels: up to 255 ids, distinct"):
        LabelMap(Label(i, str(i), (0, 0, 0)) for i in ids)


def test_a_written_mask_is_a_palette_png_of_raw_ids(tmp_path):
    train = np.array([[0, 18, 255]], np.uint8)
    cityscapes.LABELS.write(tmp_path / "m.png", train)
    image = Image.open(tmp_path / "m.png")
    assert image.mode == "P"
    assert np.asarray(image).tolist() == [[7, 33, 0]]
    assert image.convert("RGB").getpixel((0, 0)) == (128, 64, 128)


def test_official_label_maps():
    assert (len(voc.LABELS), len(cityscapes.LABELS), len(camvid.LABELS)) == (21, 19, 11)
    assert [voc.color(i) for i in (1, 15, 20)] == [
        (128, 0, 0),
        (192, 128, 128),
        (0, 64, 128),
    ]  # from the devkit
    assert sorted({x.id for x in cityscapes.LABELS.labels} | set(cityscapes.LABELS.ignore)) == [
        *range(34),
        255,
    ]
    assert camvid.LABELS.encode(np.array([[11]], np.uint8)).item() == 255


def test_cityscapes_agrees_with_its_owners():
    theirs = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    ours = {x.id: (i, x.name, x.color) for i, x in enumerate(cityscapes.LABELS.labels)}
    assert ours == {x.id: (x.trainId, x.name, x.color) for x in theirs if 0 <= x.trainId < 19}


def test_dict_round_trip():
    assert LabelMap.from_dict(camvid.LABELS.to_dict()) == camvid.LABELS


def test_read_classes(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("# id name r g b\n3 cat 1 2 3\n0 dog 4 5 6  # a comment\n\n9 void 0 0 0\n")
    labels = read_classes(path)
    assert labels.names == ["cat", "dog"]
    assert labels.encode(np.array([[3, 0, 9, 255]], np.uint8)).tolist() == [[0, 1, 255, 255]]


@pytest.mark.parametrize(
    "text, message",
    [
        ("0 cat 1 2\n", "line 1"),
        ("0 cat 1 2 900\n", "line 1"),
        ("", "no class"),
        ("0 a 1 1 1\n0 b 1 1 1\n", "distinct"),
    ],
)
def test_broken_classes_txt(tmp_path, text, message):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_classes(tmp_path / "classes.txt")
