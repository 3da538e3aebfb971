"""The doctor's proposals work: a corrected classes.txt or a fixed copy has the same truth."""

import shutil

import numpy as np
import pytest
from PIL import Image

from cfnseg.config import Config, Data
from cfnseg.data.dataset import open_dataset, read_truth
from cfnseg.errors import UserError
from tests.doctor import planted as p
from tests.doctor.test_faults import ERRORS, clean, data, examine, kinds  # noqa: F401

REMAPPED = {
    "scaled": p.scaled,
    "brightness": p.gray,
    "from 1": lambda m: np.where(m < 255, m + 1, m).astype(np.uint8),
}


def truths(root):
    return [
        read_truth(open_dataset("folder", str(root), split), i)
        for split in ("train", "val")
        for i in range(len(open_dataset("folder", str(root), split).names))
    ]


def proposal(report):
    return next(f["classes_txt"] for f in report["findings"] if f["classes_txt"])


@pytest.mark.parametrize("name", REMAPPED)
def test_other_ids_in_classes_txt_fix_all_masks(name, data, tmp_path):  # noqa: F811
    before = truths(data)
    p.change(p.masks(data), REMAPPED[name])
    with pytest.raises(UserError):
        truths(data)
    (data / "classes.txt").write_text(proposal(examine(data, tmp_path / "out")))
    report = examine(data, tmp_path / "out")
    assert report["counts"]["error"] == report["counts"]["warning"] == 0, report["findings"]
    assert all(np.array_equal(a, b) for a, b in zip(before, truths(data)))


def test_two_classes_of_0_and_255(data, tmp_path):  # noqa: F811
    (data / "classes.txt").write_text("0 other 0 0 0\n1 object 255 0 0\n")
    p.change(p.masks(data), lambda m: np.where(m > 1, 255, 0).astype(np.uint8))
    (data / "classes.txt").write_text(proposal(examine(data, tmp_path / "out")))
    assert examine(data, tmp_path / "out")["counts"]["error"] == 0
    assert {int(v) for t in truths(data) for v in np.unique(t)} == {0, 1}


def test_a_void_line_ignores_an_unknown_id(data, tmp_path):  # noqa: F811
    p.put(data, p.mask(data), 77)
    text = proposal(examine(data, tmp_path / "out"))
    assert text.endswith("77 void 0 0 0\n")
    (data / "classes.txt").write_text(text)
    report = examine(data, tmp_path / "out")
    assert report["counts"]["error"] == report["counts"]["warning"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("3 square", "3, square"), "line 4 cannot be read"),
        (lambda text: text.replace("3 square 60 165 75", "3 square"), "line 4 cannot be read"),
        (lambda text: text.replace("3 square", "3 big square"), "line 4 cannot be read"),
        (lambda text: "id name r g b\n" + text, "line 1 cannot be read"),
        (lambda text: text + "3 twice 1 2 3\n", "id 3 names two classes"),
        (lambda text: text.replace("square", "disc"), "two classes are called disc"),
        (
            lambda text: text.replace("60 165 75", "225 60 60"),
            "disc and square have the same colour",
        ),
        (lambda text: "# nothing\n", "no usable classes.txt"),
    ],
)
def test_classes_txt_is_corrected(change, message, data, tmp_path):  # noqa: F811
    before = truths(data)
    path = data / "classes.txt"
    path.write_text(change(path.read_text()))
    report = examine(data, tmp_path / "out")
    assert kinds(report, "error", "warning") == {"classes-file"}
    assert any(message in f["title"] for f in report["findings"])
    path.write_text(proposal(report))
    report = examine(data, tmp_path / "out")
    assert report["counts"]["error"] == report["counts"]["warning"] == 0, report["findings"]
    assert all(np.array_equal(a, b) for a, b in zip(before, truths(data)))


EXACT = [
    "half the size",
    "EXIF orientation",
    "colour mask",
    "ids in three channels",
    "brightness of a palette",
    "sorted palette",
    "16 bits",
    "multiplied ids",
    "every id multiplied",
    "ids from 1",
    "mask with another name",
    "mask with another suffix",
]
LEFT_OUT = [
    "truncated image",
    "truncated mask",
    "image without mask",
    "other size",
    "swapped sides",
    "unknown colours",
    "gray JPEG",
    "copy in val",
]


@pytest.mark.parametrize(
    "name", [*EXACT, *LEFT_OUT, "smeared colours", "unknown id", "two suffixes"]
)
def test_a_fixed_copy(name, data, tmp_path):  # noqa: F811
    before = truths(data)
    ERRORS[name][2](data)
    files = sorted((path, path.read_bytes()) for path in data.rglob("*") if path.is_file())
    examine(data, tmp_path / "out", fix=tmp_path / "copy")
    assert files == sorted((path, path.read_bytes()) for path in data.rglob("*") if path.is_file())
    report = examine(tmp_path / "copy", tmp_path / "out")
    assert kinds(report, "error", "warning") == set()
    after = truths(tmp_path / "copy")
    if name in LEFT_OUT:
        assert len(after) == 23
    elif name == "half the size":
        assert np.mean([(a == b).mean() for a, b in zip(before, after)]) > 0.99
    elif name in EXACT:
        assert all(np.array_equal(a, b) for a, b in zip(before, after))
    elif name == "smeared colours":
        assert len(after) == 24
        inner = before[3] != 255  # the void outlines are what compression blurs
        assert (before[3] == after[3])[inner].mean() > 0.8


def test_a_copy_needs_an_empty_folder(data, tmp_path):  # noqa: F811
    with pytest.raises(UserError, match="has files in it"):
        examine(data, tmp_path / "out", fix=data)


def test_voc_is_fixed_into_a_folder_data_set(tmp_path):
    home = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (home / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    from cfnseg.data.formats.voc import LABELS

    for name in ("a", "v"):
        p.save(home / "JPEGImages" / f"{name}.jpg", rng.integers(0, 255, (40, 50, 3), np.uint8))
        Image.fromarray(LABELS.palette()[rng.integers(0, 21, (40, 50))]).save(
            home / "SegmentationClass" / f"{name}.png"
        )
    for split, name in (("train", "a"), ("val", "v")):
        (home / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(f"{name}\n")
    report = examine(tmp_path, tmp_path / "out", fix=tmp_path / "copy", name="voc")
    assert kinds(report, "error") == {"mask-colors"}
    assert examine(tmp_path / "copy", tmp_path / "out")["counts"]["error"] == 0
    shutil.rmtree(home / "ImageSets")
    assert kinds(examine(tmp_path, tmp_path / "out", name="voc"), "error") == {"layout"}


def test_shapes_are_drawn_and_clean(tmp_path, monkeypatch):
    from cfnseg.data.formats.shapes import ShapesDataset

    monkeypatch.setattr(ShapesDataset, "sizes", {"train": 24, "val": 12, "test": 1})
    from cfnseg.doctor import examine_data

    report = examine_data(Config(data=Data(name="shapes", crop=(160, 224)), name="s"), tmp_path)
    assert report["counts"]["error"] == report["counts"]["warning"] == 0
