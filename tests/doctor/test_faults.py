"""Each planted fault is found by kind and file, no other error is; clean data has no fault."""

import json
import shutil

import numpy as np
import pytest

from cfnseg.config import Config, Data
from cfnseg.data.dataset import open_dataset, read_truth
from cfnseg.doctor import examine_data
from cfnseg.errors import UserError
from tests.doctor import planted as p


@pytest.fixture(scope="session")
def clean(tmp_path_factory):
    return p.make(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def data(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "data")


def examine(root, out, fix=None, command="python tools/doctor.py CONFIG", **settings):
    config = Config(
        data=Data(**{"name": "folder", "root": str(root), "crop": (64, 64)} | settings), name="test"
    )
    report = examine_data(config, out, fix=fix, command=command)
    assert json.loads((out / "doctor.json").read_text()) == report
    assert (out / "doctor.html").stat().st_size < 5_000_000
    return report


def kinds(report, *severities):
    return {f["kind"] for f in report["findings"] if f["severity"] in severities}


def test_a_clean_data_set_has_no_fault(clean, tmp_path, capsys):
    report = examine(clean, tmp_path)
    assert report["counts"]["error"] == report["counts"]["warning"] == 0, report["findings"]
    assert "Nothing is wrong with it" in capsys.readouterr().out
    truth = sum(
        np.bincount(
            read_truth(open_dataset("folder", str(clean), "train"), i).ravel(), minlength=256
        )
        for i in range(18)
    )
    assert [c["pixels"] for c in report["splits"][0]["classes"]] == truth[:8].tolist()
    assert report["splits"][0]["ignored_share"] == pytest.approx(truth[255] / truth.sum())


ERRORS = {  # name: (kind, the file that is named, how it is planted, what the text explains)
    "truncated image": (
        "image-unreadable",
        "images/train/s03.png",
        lambda r: p.truncate(p.image(r)),
        "s03.png",
    ),
    "truncated mask": (
        "mask-unreadable",
        "labels/train/s03.png",
        lambda r: p.truncate(p.mask(r)),
        "not a readable mask",
    ),
    "mask that is text": (
        "mask-unreadable",
        "labels/val/s02.png",
        lambda r: p.mask(r, "val/s02").write_text("no mask"),
        "not a readable",
    ),
    "image without mask": (
        "mask-missing",
        "images/train/s03.png",
        lambda r: p.mask(r).unlink(),
        "refuses",
    ),
    "other size": (
        "size-mismatch",
        "labels/train/s03.png",
        lambda r: p.change([p.mask(r)], lambda m: m[:, :100]),
        "100x96",
    ),
    "half the size": (
        "size-mismatch",
        "labels/train/s03.png",
        lambda r: p.change([p.mask(r)], lambda m: m[::2, ::2]),
        "another scale",
    ),
    "swapped sides": (
        "size-mismatch",
        "labels/train/s03.png",
        lambda r: p.change([p.mask(r)], lambda m: m.T.copy()),
        "swapped",
    ),
    "EXIF orientation": ("size-mismatch", "labels/train/s03.png", p.turned, "EXIF"),
    "colour mask": (
        "mask-colors",
        "labels/train/s03.png",
        lambda r: p.change([p.mask(r)], p.colours),
        "(120, 180, 235) is 0 sky",
    ),
    "ids in three channels": (
        "mask-colors",
        "labels/train/s03.png",
        lambda r: p.change([p.mask(r)], lambda m: np.dstack([m] * 3)),
        "id",
    ),
    "smeared colours": ("mask-lossy", "labels/train/s03.png", p.smeared, "smeared"),
    "unknown colours": (
        "unknown-color",
        "labels/train/s03.png",
        lambda r: p.change([p.mask(r)], lambda m: 255 - p.colours(m)),
        "(135, 75, 20)",
    ),
    "gray JPEG": (
        "mask-lossy",
        "labels/train/s03.png",
        lambda r: p.save(p.mask(r), p.ids(p.mask(r)), format="JPEG"),
        "JPEG",
    ),
    "brightness of a palette": (
        "mask-luminance",
        "labels/train/s03.png",
        lambda r: p.change([p.mask(r)], p.gray),
        "classes' colours",
    ),
    "sorted palette": ("mask-palette", "labels/train/s03.png", p.reordered, "sorted anew"),
    "16 bits": (
        "mask-deep",
        "labels/train/s03.png",
        lambda r: p.change([p.mask(r)], lambda m: m.astype(np.uint16) * 257),
        "257",
    ),
    "multiplied ids": (
        "mask-scaled",
        "labels/train/s03.png",
        lambda r: p.change([p.mask(r)], p.scaled),
        "multiplied by 10",
    ),
    "every id multiplied": (
        "mask-scaled",
        "labels/train/s00.png",
        lambda r: p.change(p.masks(r), p.scaled),
        "multiplied by 10",
    ),
    "unknown id": (
        "unknown-id",
        "labels/train/s03.png",
        lambda r: p.put(r, p.mask(r), 77),
        "id 77 (35 pixels in 1 mask)",
    ),
    "one id too many": (
        "unknown-id",
        "labels/train/s03.png",
        lambda r: p.put(r, p.mask(r), 8),
        "reduce_zero_label",
    ),
    "ids from 1": (
        "mask-shifted",
        "labels/train/s00.png",
        lambda r: p.change(p.masks(r), lambda m: np.where(m < 255, m + 1, m)),
        "count from 1",
    ),
    "masks of 0 and 255": (
        "mask-binary",
        "labels/train/s00.png",
        lambda r: p.change(p.masks(r), lambda m: np.where(m > 1, 255, 0).astype(np.uint8)),
        "255 is ignored",
    ),
    "copy in val": (
        "duplicate-between",
        "images/val/s02.png",
        lambda r: [shutil.copy(f(r, "train/s03"), f(r, "val/s02")) for f in (p.image, p.mask)],
        "too high",
    ),
    "two suffixes": (
        "name-collision",
        "images/train/s03.jpg",
        lambda r: p.save(r / "images/train/s03.jpg", 255 - p.ids(p.image(r))),
        "suffix",
    ),
    "mask with another name": (
        "mask-name",
        "labels/train/s03_mask.png",
        lambda r: p.mask(r).rename(r / "labels/train/s03_mask.png"),
        "image",
    ),
    "mask with another suffix": (
        "mask-name",
        "labels/train/s03.tif",
        lambda r: (p.save(r / "labels/train/s03.tif", p.ids(p.mask(r))), p.mask(r).unlink()),
        "image",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_planted_errors(name, data, tmp_path):
    kind, file, plant, message = ERRORS[name]
    plant(data)
    report = examine(data, tmp_path / "out")
    assert kinds(report, "error") == {kind}, [f["title"] for f in report["findings"]]
    finding = next(f for f in report["findings"] if f["kind"] == kind)
    assert file in finding["files"]
    assert message in f"{finding['title']} {finding['text']}"
    assert finding["fix"]


WARNINGS = {
    "mask without image": (
        "image-missing",
        "labels/train/extra.png",
        lambda r: shutil.copy(p.mask(r), r / "labels/train/extra.png"),
    ),
    "all ignored": (
        "all-ignored",
        "labels/train/s03.png",
        lambda r: p.change([p.mask(r)], lambda m: np.full_like(m, 255)),
    ),
    "black image": (
        "image-constant",
        "images/train/s03.png",
        lambda r: p.save(p.image(r), np.zeros((*p.SIZE, 3), np.uint8)),
    ),
    "gray image": (
        "image-gray",
        "images/train/s03.png",
        lambda r: p.save(p.image(r), np.dstack([p.ids(p.image(r))[..., 1]] * 3)),
    ),
    "copy in train": (
        "duplicate-within",
        "images/train/t.png",
        lambda r: [shutil.copy(f(r), f(r, "train/t")) for f in (p.image, p.mask)],
    ),
    "near copy in val": (
        "near-duplicate-between",
        "images/val/s02.png",
        lambda r: p.save(p.image(r, "val/s02"), (p.ids(p.image(r)) * 0.9 + 9).astype(np.uint8)),
    ),
    "two cases": (
        "name-case",
        "images/train/S03.png",
        lambda r: [shutil.copy(f(r), f(r, "train/S03")) for f in (p.image, p.mask)],
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_planted_warnings(name, data, tmp_path):
    kind, file, plant = WARNINGS[name]
    plant(data)
    report = examine(data, tmp_path / "out")
    assert kinds(report, "error") == set()
    finding = next(f for f in report["findings"] if f["kind"] == kind)
    assert finding["severity"] == "warning"
    assert file in finding["files"]


def test_absent_classes_are_an_error_in_train_and_a_warning_in_val(data, tmp_path):
    p.change(p.masks(data), lambda m: np.where(m == 7, 255, m).astype(np.uint8))
    report = examine(data, tmp_path / "out")
    found = {f["severity"]: f["text"] for f in report["findings"] if f["kind"] == "class-absent"}
    assert found.keys() == {"error", "warning"}
    assert all(text.startswith("cross: no pixel") for text in found.values())


def test_missing_splits_name_the_one_to_take(data, tmp_path):
    for kind in ("images", "labels"):
        (data / kind / "val").rename(data / kind / "validation")
    report = examine(data, tmp_path / "out")
    assert kinds(report, "error") == {"split-missing"}
    assert report["findings"][0]["fix"] == ["--data.val-split validation"]
    assert examine(data, tmp_path / "out", val_split="validation")["counts"]["error"] == 0


def test_without_a_val_split_a_part_of_train_is_held_out(data, tmp_path):
    for kind in ("images", "labels"):
        shutil.rmtree(data / kind / "val")
    finding = examine(data, tmp_path / "out")["findings"][0]
    option, prefix = finding["fix"][0].split()
    assert (finding["kind"], option) == ("split-missing", "--data.holdout")
    report = examine(data, tmp_path / "out", holdout=prefix)
    assert kinds(report, "error") == set()
    assert sorted(s["role"] for s in report["splits"]) == ["train", "val"]


def test_training_on_both_splits_is_told(data, tmp_path):
    report = examine(data, tmp_path / "out", train_split="train+val")
    assert kinds(report, "error", "warning") == {"same-split"}
    assert {s["role"] for s in report["splits"]} == {"train"}
    report = examine(data, tmp_path / "out", train_split="train+val", holdout="s1")
    assert kinds(report, "error", "warning") == set()
    assert {s["role"] for s in report["splits"]} == {"train", "val"}


def test_the_folder_above_names_the_data_set(data, tmp_path):
    report = examine(data.parent, tmp_path / "out")
    assert report["findings"][0]["fix"] == [f"--data.root {data}"]
    assert examine(tmp_path / "none", tmp_path / "out")["findings"][0]["kind"] == "layout"


def test_an_image_level_config_is_refused(tmp_path):
    config = Config(data=Data(name="cifar10"))
    with pytest.raises(UserError, match="level image"):
        examine_data(Config(model=type(config.model)(level="image")), tmp_path)
