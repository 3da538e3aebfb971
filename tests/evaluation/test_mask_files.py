"""Mask files of any program: their scores, and one line for each mistake."""

import json
import runpy
import shutil

import numpy as np
import pytest
from PIL import Image

from cfnseg.data.dataset import open_dataset, read_truth
from cfnseg.evaluation.mask_files import evaluate_masks
from cfnseg.metrics.confusion import iou_of
from tests.conftest import REPO


@pytest.fixture
def masks(folder_data, tmp_path):
    """A mask for each of the five validation images, an eighth of it wrong."""
    folder = tmp_path / "masks"
    shutil.copytree(folder_data / "labels" / "val", folder)
    for path in folder.iterdir():
        mask = np.array(Image.open(path))
        mask[mask == 255] = 0
        mask[:8] = mask[8:16]
        Image.fromarray(mask).save(path)
    return folder


def files(data, folder):
    return [folder / f"{name}.png" for name in data.names]


@pytest.fixture
def tool(folder_data, masks, monkeypatch, capsys):
    """Run eval_seg on the masks, in this process; returns its exit status, output and errors."""

    def run(*args: object, root=folder_data):
        given = [
            "eval_seg",
            "--predictions",
            masks,
            "--dataset",
            "folder",
            "--root",
            root,
            "--workers",
            0,
            *args,
        ]
        monkeypatch.setattr("sys.argv", [str(arg) for arg in given])
        status = 0
        try:
            runpy.run_path(str(REPO / "tools" / "eval_seg.py"), run_name="__main__")
        except SystemExit as end:
            status = end.code or 0  # None is success
        return status, *capsys.readouterr()

    return run


def test_workers_and_details_change_no_count(folder_data, masks):
    data = open_dataset("folder", str(folder_data), "val")
    lean = evaluate_masks(data, files(data, masks), workers=0)
    full = evaluate_masks(data, files(data, masks), workers=2, details=True)
    assert lean.details is None and lean.confusion.sum() == lean.counts[:, 1].sum() > 20_000
    assert 0.5 < lean.scores.miou < 1
    assert np.array_equal(lean.confusion, full.confusion) and np.array_equal(
        lean.counts, full.counts
    )
    assert np.array_equal(full.details.sizes.sum(0), full.counts.sum(0))
    assert (
        full.details.trimap[0] < full.details.trimap[-1]
    ).any() and full.details.boundary.shape == (5, 3, len(data.labels))


def test_a_pixel_without_a_class_is_wrong(folder_data, masks, tool, tmp_path):
    data = open_dataset("folder", str(folder_data), "val")
    before = evaluate_masks(data, files(data, masks), workers=0)
    mask = np.array(Image.open(masks / "s02.png"))
    lost = mask[40:60, 10:30][read_truth(data, 2)[40:60, 10:30] != 255]  # of those that count
    mask[40:60, 10:30] = 255
    Image.fromarray(mask).save(masks / "s02.png")
    after = evaluate_masks(data, files(data, masks), workers=0, details=True)
    assert np.array_equal(after.counts[:, 1], before.counts[:, 1])  # the truth is what it was
    assert before.counts[2, 2].sum() - after.counts[2, 2].sum() == lost.size
    hit = before.counts.sum(0)[0] - [
        (lost == label.id).sum() for label in data.labels.labels
    ]  # all correct
    assert np.array_equal(after.counts.sum(0)[0], hit)
    assert np.array_equal(
        after.scores.iou,
        iou_of(np.stack([hit, before.counts.sum(0)[1], after.counts.sum(0)[2]])),
        equal_nan=True,
    )
    assert np.array_equal(after.details.sizes.sum(0), after.counts.sum(0))
    status, out, _ = tool("--out", tmp_path / "report")
    assert (
        status == 0
        and f"{lost.size} px are predicted as an ignored id; they count as wrong." in out
    )
    assert (
        json.loads((tmp_path / "report" / "report.json").read_text())["unpredicted_pixels"]
        == lost.size
    )


def test_explained(tool, tmp_path):
    status, out, _ = tool("--explain-metric", "--out", tmp_path / "a")
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    theirs = next(
        row["miou"]
        for row in report["conventions"]
        if row["library"] == "detectron2 SemSegEvaluator"
    )
    assert (
        status == 0
        and f"| detectron2 SemSegEvaluator | {100 * theirs:.1f}" in out
        and "| torchvision references | " in out
    )
    assert (
        report["conventions"][0]["library"] == "cfnseg"
        and report["conventions"][0]["miou"] == report["miou"]
    )
    assert report["calibration"] is None and report["trimap"][0]["width"] == 1
    status, out, _ = tool("--out", tmp_path / "b")
    assert "detectron2" not in out and "conventions" not in json.loads(
        (tmp_path / "b" / "report.json").read_text()
    )


def test_missing_twice_and_extra(tool, masks, tmp_path):
    shutil.copy(masks / "s00.png", masks / "other.png")
    status, out, _ = tool("--out", tmp_path / "report")
    assert status == 0
    assert (
        f"note: 1 PNG file in {masks} belongs to no image of folder val and is not scored: "
        "other.png" in out
    )
    shutil.copy(masks / "s01.png", masks / "s01_mask.png")
    status, _, err = tool()
    assert (status, err) == (
        1,
        f"error: 1 image has two predictions in {masks}, "
        "first s01.png and s01_mask.png; keep one\n",
    )
    (masks / "s01_mask.png").unlink()
    (masks / "s01.png").unlink()
    (masks / "s04.png").unlink()
    status, _, err = tool()
    assert (status, err) == (
        1,
        f"error: no prediction for 2 of 5 images: neither s01.png nor s01_mask.png in {masks}, "
        "which has 4 PNG "
        "files; also s04\n",
    )
    shutil.rmtree(masks)
    status, _, err = tool()
    assert status == 1 and err.startswith(
        f"error: the folder of predictions not found at {masks}; "
    )


def test_wrong_size_and_unknown_id(tool, masks):
    mask = np.array(Image.open(masks / "s03.png"))
    Image.fromarray(mask[:50]).save(masks / "s03.png")
    status, _, err = tool()
    assert (status, err) == (
        1,
        f"error: {masks}/s03.png is 80x50, the truth is 80x64; "
        "masks are scored at the truth's size\n",
    )
    mask[0, :7] = 77
    Image.fromarray(mask).save(masks / "s03.png")
    status, _, err = tool()
    assert status == 1 and err.startswith(
        f"error: {masks}/s03.png: unknown label id 77 (7 px); the 8 classes have ids [0, 1,"
    )
    Image.fromarray(np.zeros((64, 80, 3), np.uint8)).save(masks / "s03.png")
    status, _, err = tool()
    assert status == 1 and err.startswith(
        f"error: {masks}/s03.png: the mask has colours (mode RGB)"
    )


def test_unknown_id_in_the_truth(tool, folder_data, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder_data, broken)
    Image.fromarray(np.full((64, 80), 99, np.uint8)).save(broken / "labels" / "val" / "s00.png")
    status, _, err = tool(root=broken)
    assert status == 1 and err.startswith(
        f"error: {broken}/labels/val/s00.png: unknown label id 99 (5120 px)"
    )


def test_empty_split(tool, folder_data, tmp_path):
    root = tmp_path / "empty"
    for kind in ("images", "labels"):
        (root / kind / "val").mkdir(parents=True)
    shutil.copy(folder_data / "classes.txt", root)
    status, _, err = tool(root=root)
    assert status == 1 and err.startswith(f"error: 0 images matched {root}/images/val/")


def test_a_report_that_cannot_be_written_is_refused_before_the_work(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "cfnseg.workflows.evaluate_masks", lambda *_, **__: pytest.fail("scored first")
    )
    (tmp_path / "file").write_text("")
    status, _, err = tool("--out", tmp_path / "file" / "report")
    assert (status, err) == (
        1,
        f"error: {tmp_path}/file/report: the report's folder cannot be made (Not a directory); "
        "choose another "
        "with --out\n",
    )
    monkeypatch.setattr(
        "os.access", lambda *_: False
    )  # the superuser may write anywhere but on a disk that is read-only
    status, _, err = tool("--out", tmp_path / "new")
    assert (status, err) == (
        1,
        f"error: {tmp_path}/new: the report's folder cannot be written; "
        "choose another with --out\n",
    )
