"""Overlapping labels on disk and in memory: layers of 0, 1 and 255."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cfnseg.config import Data
from cfnseg.data.dataset import Layers, Subset, fingerprint, open_dataset, read_sample, read_truth
from cfnseg.data.labels import Label, LabelMap
from cfnseg.data.layers import read_layers, write_layers
from cfnseg.data.loader import class_counts, whole_images
from cfnseg.data.transforms import TrainTransform, draw_pixel, draw_span, resize_mask
from cfnseg.errors import UserError
from tests.overlapping import CLASSES, LABELS, scene, write_folder


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "data", {"train": 4, "val": 2})


def opened(root, split="train"):
    return Layers(open_dataset("folder", str(root), split))


def test_layers_are_what_the_files_say(root):
    data = opened(root)
    assert data.labels.names == ["stripe", "disc"] and data.names == [
        "s000",
        "s001",
        "s002",
        "s003",
    ]
    for index in range(4):
        image, layers = read_sample(data, index)
        expected = scene(index)
        assert (image == expected[0]).all() and (layers == expected[1]).all()
        assert layers.dtype == np.uint8 and layers.shape == (*image.shape[:2], 2)
        assert (read_truth(data, index) == layers).all()
    assert (scene(0)[1].sum(2) == 2).any(), "nothing overlaps"
    index, image, mask = next(whole_images(data, 0))
    assert image.shape == (3, 48, 64) and mask.shape == (48, 64, 2)


def test_an_absent_file_is_an_absent_class_and_void_is_ignored(root):
    folder = root / "labels/train/s000"
    (folder / "disc.png").unlink()
    void = np.zeros((48, 64), np.uint8)
    void[:5] = 255
    Image.fromarray(void).save(folder / "void.png")
    layers = read_truth(opened(root), 0)
    assert (layers[:5] == 255).all() and (layers[5:, :, 1] == 0).all()
    assert (layers[5:, :, 0] == scene(0)[1][5:, :, 0]).all()
    for path in folder.iterdir():
        path.unlink()
    assert (read_truth(opened(root), 0) == 0).all()  # in the image's size


@pytest.mark.parametrize("form", ["255", "1", "bit", "palette"])
def test_every_usual_form_of_a_binary_mask(root, form):
    mask = scene(1)[1][..., 1]
    image = Image.fromarray(mask * 255 if form in ("255", "bit") else mask)
    if form == "bit":
        image = image.convert("1")
    if form == "palette":
        image = Image.fromarray(mask, mode="P")
        image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(root / "labels/train/s001/disc.png")
    assert (read_truth(opened(root), 1)[..., 1] == mask).all()


def broken(root, change):
    folder = root / "labels/train/s000"
    ones = np.ones((48, 64), np.uint8)
    if change == "class":
        Image.fromarray(ones).save(folder / "dics.png")
    elif change == "size":
        Image.fromarray(ones[:40]).save(folder / "disc.png")
    elif change == "image":
        Image.fromarray(np.zeros((48, 60, 3), np.uint8)).save(root / "images/train/s000.png")
    elif change == "grey":
        ones[0] = 128
        Image.fromarray(ones).save(folder / "disc.png")
    elif change == "both values":
        ones[0] = 255
        Image.fromarray(ones).save(folder / "disc.png")
    elif change == "kind":
        Image.fromarray(ones).save(folder / "disc.jpg")
    elif change == "damaged":
        (folder / "disc.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    elif change == "colours":
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / "disc.png")


@pytest.mark.parametrize(
    "change, message",
    [
        ("class", r"dics\.png: classes\.txt has no class 'dics'; there are stripe, disc, and void"),
        ("size", r"s000: the masks of one image differ in size: disc 64x40, stripe 64x48"),
        ("image", r"labels/train/s000: the mask is 64x48, its image .*s000\.png is 60x48"),
        ("grey", r"disc\.png: the mask of one class has the values 1, 128; expected 0 and 255, or"),
        ("both values", r"disc\.png: the mask of one class has the values 1, 255; expected 0 and"),
        ("kind", r"disc\.jpg: expected <class>\.png"),
        ("damaged", r"disc\.png: not a readable mask"),
        ("colours", r"disc\.png: the mask has colours \(mode RGB\), expected one id per pixel"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(root, change, message):
    broken(root, change)
    with pytest.raises(UserError, match=message) as caught:
        read_sample(opened(root), 0)
    assert "\n" not in str(caught.value)


def test_two_kinds_of_masks_for_an_image_and_none(root):
    (root / "labels/train/s001").rename(root / "labels/train/other")
    with pytest.raises(UserError, match=r"1 of 4 images in .* have no masks, first s001; an empty"):
        opened(root)
    mask = Image.fromarray(np.ones((48, 64), np.uint8))
    mask.save(root / "labels/train/s001.png")
    assert read_truth(opened(root), 1).shape == (48, 64, 2)  # a file of ids for this one
    mask.save(root / "labels/train/s002.png")
    with pytest.raises(UserError, match=r"s002 has two kinds of masks, the file .* and the folder"):
        opened(root)


def test_folders_of_images_stay_folders(root):
    for kind in ("images", "labels"):
        (root / kind / "deep/a").mkdir(parents=True)
    for name in ("a", "a/b"):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(root / f"images/deep/{name}.png")
        Image.fromarray(np.ones((48, 64), np.uint8)).save(root / f"labels/deep/{name}.png")
    assert sorted(open_dataset("folder", str(root), "deep").names) == ["a", "b"]


def test_softmax_refuses_layers_in_one_line(root):
    data = open_dataset("folder", str(root), "train")
    for dataset in (data, Subset(data, [0])):
        with pytest.raises(UserError, match=r"s000 is a folder with a mask for each .*sigmoid"):
            read_sample(dataset, 0)
    assert fingerprint(data) == fingerprint(open_dataset("folder", str(root), "train"))
    before = fingerprint(data)
    (root / "labels/train/s000/disc.png").write_bytes(b"changed")
    assert fingerprint(data) != before


class Own:
    labels = LABELS
    names = ("one",)

    def __init__(self, ids):
        self.array = ids

    def image(self, index):
        return np.zeros((*self.array.shape[:2], 3), np.uint8)

    def ids(self, index):
        return self.array


def test_one_id_a_pixel_becomes_layers():
    ids = np.array([[0, 1, 2, 255]], np.uint8)
    assert read_truth(Layers(Own(ids)), 0).tolist() == [[[0, 0], [1, 0], [0, 1], [255, 255]]]
    with pytest.raises(UserError, match=r"one: unknown label id 7 \(1 px\)"):
        read_truth(Layers(Own(np.full((1, 1), 7, np.uint8))), 0)


def test_the_binary_mask_of_0_and_1_or_255():
    """Without a line for 0 the background is none of the classes; with one it is a class."""
    one = LabelMap([Label(1, "lesion", (255, 0, 0))])
    assert one.spread(np.array([[0, 1, 255]], np.uint8)).tolist() == [[[0], [1], [255]]]
    white = LabelMap([Label(255, "lesion", (255, 0, 0))], ())
    assert white.spread(np.array([[0, 255]], np.uint8)).tolist() == [[[0], [1]]]
    two = LabelMap([Label(0, "background", (0, 0, 0)), Label(1, "lesion", (255, 0, 0))])
    assert two.spread(np.array([[0, 1]], np.uint8)).tolist() == [[[1, 0], [0, 1]]]
    ignored = LabelMap([Label(1, "lesion", (255, 0, 0))], (0, 255))
    assert ignored.spread(np.array([[0, 1]], np.uint8)).tolist() == [[[255], [1]]]


@pytest.mark.parametrize(
    "layers, message",
    [
        (np.full((4, 4, 2), 3, np.uint8), "layers have the values 0, 1 and 255; found 3"),
        (np.zeros((4, 4, 3), np.uint8), r"expected a NumPy array \(H, W, 2\) of uint8"),
        (np.zeros((4, 4, 2)), r"the mask is float64 of shape \(4, 4, 2\)"),
    ],
)
def test_layers_of_ones_own(layers, message):
    with pytest.raises(UserError, match=message):
        read_sample(Layers(Own(layers)), 0)


def test_written_layers_are_read_again(tmp_path):
    masks = np.random.default_rng(0).random((2, 20, 30)) < 0.5
    write_layers(tmp_path / "x", masks, LABELS)
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["disc.png", "stripe.png"]
    assert (read_layers(tmp_path / "x", LABELS, tuple) == masks.transpose(1, 2, 0)).all()
    with pytest.raises(UserError, match=r"'a_b' cannot have a mask file"):
        write_layers(
            tmp_path, masks, LabelMap([Label(1, "a/b", (0, 0, 0)), Label(2, "a_b", (1, 1, 1))])
        )


@given(seed=st.integers(0, 10_000), factor=st.floats(0.3, 3))
def test_each_layer_is_cut_and_resized_as_a_mask(seed, factor):
    rng = np.random.default_rng(seed)
    layers = rng.choice(np.array([0, 1, 255], np.uint8), (37, 45, 3))
    spans = [draw_span(n, 32, factor, place) for n, place in zip((37, 45), rng.random(2))]
    whole = resize_mask(layers, *spans)
    for c in range(3):
        assert (whole[..., c] == resize_mask(layers[..., c], *spans)).all()


def test_a_sample_of_layers():
    image, layers = scene(3)
    settings = Data(crop=(64, 80), scale=(0.8, 1.2), rare=1.0)
    sample = TrainTransform(settings)(image, layers, "x", 5)
    assert sample.mask.shape == (64, 80, 2) and set(np.unique(sample.mask)) == {0, 1, 255}
    # each class alone, as ids, is cut the same: only the draw of a rare pixel reads the mask
    settings = Data(crop=(64, 80), scale=(0.8, 1.2))
    whole = TrainTransform(settings)(image, layers, "x", 5)
    for c in range(2):
        alone = TrainTransform(settings)(image, layers[..., c], "x", 5)
        assert (alone.mask == whole.mask[..., c]).all() and (alone.image == whole.image).all()


def test_an_augmentation_of_ones_own_gets_layers(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "def turned(image, mask, rng):\n    return image.swapaxes(0, 1), mask.swapaxes(0, 1)\n"
        "def single(image, mask, rng):\n    return image, mask[..., 0]\n"
    )
    image, layers = scene(3)
    plain = Data(crop=(64, 64), scale=(1, 1), flip=False, photometric=0)
    own = dataclasses.replace(plain, augment=f"{file}:turned")
    turned = TrainTransform(own)(image, layers, "x", 0).mask
    expected = TrainTransform(plain)(
        np.ascontiguousarray(image.swapaxes(0, 1)), layers.swapaxes(0, 1), "x", 0
    ).mask
    assert (turned == expected).all()
    with pytest.raises(UserError, match="of one size in return"):
        TrainTransform(dataclasses.replace(own, augment=f"{file}:single"))(image, layers, "x", 0)


def test_a_rare_pixel_is_of_the_drawn_class():
    layers = np.zeros((20, 20, 2), np.uint8)
    layers[:, :, 0] = 1
    layers[3, 7, 1] = 1
    rng = np.random.default_rng(0)
    assert {draw_pixel(layers, 1, rng) for _ in range(9)} == {(3, 7)}
    assert len({draw_pixel(layers, 0, rng) for _ in range(9)}) > 5
    assert draw_pixel(np.zeros((4, 4, 2), np.uint8), 1, rng) is None
    assert len(CLASSES) == 2


def test_counts_of_classes_that_overlap(root):
    """By which data.rare draws images."""
    data = opened(root)
    expected = [(scene(i)[1] == 1).sum((0, 1)).tolist() for i in range(4)]
    assert class_counts(data, 0).tolist() == expected
