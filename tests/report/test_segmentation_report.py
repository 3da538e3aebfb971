"""The three files of a report on a segmentation."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cfnseg.data.labels import Label, LabelMap
from cfnseg.errors import UserError
from cfnseg.evaluation.segmentation import Evaluation
from cfnseg.metrics.confusion import confusion_matrix, counts_of
from cfnseg.metrics.segments import Details, count_details
from cfnseg.report.charts import charts, heatmap, ticks
from cfnseg.report.gallery import choose
from cfnseg.report.segmentation_report import write_report

KEYS = {
    "miou",
    "miou_ci95",
    "miou_divisor",
    "pixel_accuracy",
    "mean_accuracy",
    "boundary_miou",
    "boundary_miou_ci95",
    "image_map",
    "loss",
    "num_images",
    "unpredicted_pixels",
    "classes",
    "trimap",
    "sizes",
    "calibration",
    "decisions",
    "confusion",
    "facts",
    "images",
}
LABELS = LabelMap(
    [
        Label(i + 1, name, (40 * i, 200 - 30 * i, 90))
        for i, name in enumerate(
            ["road", "car | van", "<script>alert(1)</script>", "sky", "nowhere"]
        )
    ],
    ignore=(0, 255),
    void=0,
)
EMPTY = Evaluation([], np.zeros((5, 5), np.int64), np.zeros((0, 3, 5), np.int64))


def pictures(count: int, height: int = 60, width: int = 90, classes: int = 4):
    """Random images; their truths have ignored pixels and, by default, never the last class."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        truth = rng.integers(0, classes, (height, width), dtype=np.uint8)
        prediction = np.where(
            rng.random(truth.shape) < 0.9 - 0.05 * i, truth, rng.integers(0, classes, truth.shape)
        ).astype(np.uint8)
        truth[:5] = 255
        found.append((rng.integers(0, 256, (height, width, 3), dtype=np.uint8), truth, prediction))
    return found


def evaluation(found, classes: int = 5, model: bool = True) -> Evaluation:
    matrices = [confusion_matrix(truth, prediction, classes) for _, truth, prediction in found]
    counts = np.stack([counts_of(matrix) for matrix in matrices])
    details = Details.zeros(len(found), classes)
    for index, (_, truth, prediction) in enumerate(found):
        details.add(index, count_details(truth, prediction, classes))
    names = [f"image_{i}" for i in range(len(found))]
    if not model:
        return Evaluation(names, sum(matrices), counts)
    presence = np.random.default_rng(1).random((len(found), classes))
    calibration = np.tile([100.0, 60.0, 50.0], (15, 1))
    calibration[0] = 0
    return Evaluation(names, sum(matrices), counts, 0.5, presence, details, calibration)


class Loads(HTMLParser):
    """Everything in a page that a browser would fetch, and its start tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched, self.tags = [], []
        self.feed(page)
        self.fetched += re.findall(r"url\(|@import", page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [
            value
            for name, value in attrs
            if name in ("src", "href", "srcset", "poster", "data", "action")
        ]


def strict(path: Path) -> dict:
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_json_contract(tmp_path):
    found = pictures(10)
    result = evaluation(found)
    report = write_report(
        tmp_path / "new" / "report",
        result,
        LABELS,
        found.__getitem__,
        facts={"data": "toy", "images": 10},
    )
    assert strict(tmp_path / "new" / "report" / "report.json") == report
    assert set(report) == KEYS
    assert report["miou"] == result.scores.miou and report["miou_divisor"] == 4
    assert report["miou_ci95"][0] < report["miou"] < report["miou_ci95"][1]
    assert (
        0 < report["boundary_miou"] < 1 and 0 < report["image_map"] <= 1 and report["loss"] == 0.5
    )
    assert report["facts"] == {"data": "toy", "images": "10"}
    assert (
        np.array(report["confusion"]).tolist() == result.confusion.tolist()
        and report["num_images"] == 10
    )
    road, absent = report["classes"][0], report["classes"][4]
    assert (
        road["name"] == "road"
        and road["id"] == 1
        and road["truth_pixels"] == result.confusion[0].sum()
    )
    assert (
        road["predicted_pixels"] == result.confusion[:, 0].sum()
        and road["iou"] == result.scores.iou[0]
    )
    assert road["iou_ci95"][0] < road["iou"] < road["iou_ci95"][1] and 0 < road["boundary_iou"] < 1
    assert (
        report["boundary_miou_ci95"][0] < report["boundary_miou"] < report["boundary_miou_ci95"][1]
    )
    assert absent == {
        "name": "nowhere",
        "id": 5,
        "iou": None,
        "iou_ci95": [None, None],
        "recall": None,
        "precision": None,
        "boundary_iou": None,
        "sizes": {"small": None, "medium": None, "large": None},
        "truth_pixels": 0,
        "predicted_pixels": 0,
        "image_ap": None,
    }
    assert [row["width"] for row in report["trimap"]] == [1, 2, 4, 8, 16, 32] and 0 < report[
        "trimap"
    ][0]["miou"] < 1
    sizes = report["sizes"]
    assert [(row["name"], row["from_pixels"], row["to_pixels"]) for row in sizes] == [
        ("small", 1, 1024),
        ("medium", 1024, 9216),
        ("large", 9216, None),
    ]
    assert (
        sum(row["truth_pixels"] for row in sizes) == result.confusion.sum()
        and report["unpredicted_pixels"] == 0
    )
    assert (
        report["calibration"]["ece"] == pytest.approx(0.1)
        and len(report["calibration"]["bins"]) == 15
    )
    assert report["calibration"]["bins"][0] == {
        "low": 0.0,
        "high": 1 / 15,
        "pixels": 0,
        "confidence": None,
        "accuracy": None,
    }
    assert report["calibration"]["bins"][14] == {
        "low": 14 / 15,
        "high": 1.0,
        "pixels": 100,
        "confidence": 0.6,
        "accuracy": 0.5,
    }
    _, truth, prediction = found[3]
    right = (truth == prediction)[truth != 255].mean()
    assert report["images"][3]["name"] == "image_3" and report["images"][3][
        "pixel_accuracy"
    ] == pytest.approx(right)
    assert {p.name for p in (tmp_path / "new" / "report").iterdir()} == {
        "report.json",
        "report.md",
        "report.html",
    }


def test_markdown(tmp_path):
    found = pictures(3)
    report = write_report(
        tmp_path, evaluation(found), LABELS, found.__getitem__, facts={"split": "val"}
    )
    text = (tmp_path / "report.md").read_text()
    low, high = report["miou_ci95"]
    low, high, miou = (100 * x for x in (low, high, report["miou"]))
    assert (
        f"mIoU {miou:.1f} (95 % interval {low:.1f} to {high:.1f}, bootstrap over 3 images) "
        "over 4 of 5 classes" in text
    )
    assert (
        "| nowhere | 5 | - | - | - | - | - | - | - | 0 px | 0 px |" in text
        and "medium |" not in text
    )
    assert (
        "of a true boundary: 1 px " in text
        and "small (under 1,024 px) " in text
        and "calibration error 10.0" in text
    )
    assert (
        "car \\| van" in text and "IoU = TP / (TP + FP + FN)" in text and "- split: `val`" in text
    )
    for name in ("pixel accuracy", "mean accuracy", "boundary mIoU", "image-head mAP"):
        assert re.search(rf"{name} \d+\.\d\b", text)


def test_page_is_alone_and_escaped(tmp_path):
    found = pictures(9)
    write_report(
        tmp_path,
        evaluation(found),
        LABELS,
        found.__getitem__,
        facts={"weights": "<b>https://x</b>"},
    )
    page = (tmp_path / "report.html").read_text()
    loads = Loads(page)
    assert loads.fetched and all(value.startswith("data:image/") for value in loads.fetched)
    assert (
        loads.tags.count("img") == 4 * 8 and "link" not in loads.tags and "iframe" not in loads.tags
    )
    assert (
        "<script>alert" not in page and "&lt;script&gt;alert(1)" in page and "<b>https" not in page
    )
    assert 'name="viewport"' in page and "prefers-color-scheme: dark" in page


def test_page_without_model(tmp_path):
    found = pictures(2)
    report = write_report(tmp_path, evaluation(found, model=False), LABELS, found.__getitem__)
    assert (
        report["loss"]
        is report["image_map"]
        is report["boundary_miou"]
        is report["trimap"]
        is report["calibration"]
        is None
    )
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "Image-head" not in page and "image-head" not in text and "Learning curves" not in page


def test_page_stays_small_with_noise_and_many_classes(tmp_path):
    found = pictures(8, 540, 960, 200)
    labels = LabelMap(
        [Label(i, f"a class of some name {i}", (i, 255 - i, 128)) for i in range(200)]
    )
    write_report(tmp_path, evaluation(found, 200), labels, found.__getitem__)
    assert (tmp_path / "report.html").stat().st_size < 5e6


def test_no_images(tmp_path):
    report = write_report(tmp_path, EMPTY, LABELS, lambda index: pytest.fail("no image to draw"))
    assert strict(tmp_path / "report.json") == report
    assert (
        report["miou"] is None
        and report["miou_ci95"] == [None, None]
        and report["miou_divisor"] == report["num_images"] == 0
    )
    assert "**mIoU - over 0 of 5 classes**" in (tmp_path / "report.md").read_text()
    assert "<h2>Confusion" not in (tmp_path / "report.html").read_text()


def test_image_without_counted_pixels(tmp_path):
    found = pictures(3)
    found[1][1][:] = 255
    report = write_report(tmp_path, evaluation(found), LABELS, found.__getitem__)
    assert report["images"][1] == {
        "name": "image_1",
        "miou": None,
        "pixel_accuracy": None,
        "counts": [[0] * 5] * 3,
    }
    assert "<b>image_1</b>" not in (tmp_path / "report.html").read_text()


def test_run_folder(tmp_path):
    run, found = tmp_path / "run", pictures(2)
    run.mkdir()
    config = {
        "name": "toy_cfn",
        "optim": {"lr": 0.25},
        "environment": {"commit": "abc123", "torch": "9"},
    }
    (run / "config.json").write_text(json.dumps(config))
    rows = [{"step": s, "epoch": s / 10, "loss": 1 / s} for s in range(1, 900)] + [
        {"step": 10, "epoch": 1.0, "val_loss": None, "val_miou": 0.25},
        {"step": 20, "epoch": 2.0, "val_loss": 0.4, "val_miou": 0.5},
    ]
    (run / "log.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 30, "ep'
    )
    write_report(
        run / "report",
        evaluation(found),
        LABELS,
        found.__getitem__,
        facts={"data": "toy"},
        run_folder=run,
    )
    page = (run / "report" / "report.html").read_text()
    assert "toy_cfn · toy" in page and "abc123" in page and "<dt>lr</dt><dd>0.25</dd>" in page
    assert (
        "best 50.0 at epoch 2" in page
        and "Validation mIoU" in page
        and page.count("<polyline") == 5
    )
    write_report(
        run / "report", evaluation(found), LABELS, found.__getitem__, run_folder=tmp_path / "gone"
    )


def test_numbers_survive_a_picture_that_fails(tmp_path):
    def unreadable(index):
        raise UserError("image_0.jpg: cannot be read")

    with pytest.raises(UserError, match="cannot be read"):
        write_report(tmp_path, evaluation(pictures(2)), LABELS, unreadable)
    assert (
        strict(tmp_path / "report.json")["num_images"] == 2
        and not (tmp_path / "report.html").exists()
    )


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/report.*cannot be made"):
        write_report(tmp_path / "file" / "report", EMPTY, LABELS, pictures(1).__getitem__)


def test_choice_of_images():
    rows = [
        {"name": n, "miou": v}
        for n, v in [("b", 0.5), ("a", 0.5), ("c", None), ("d", 0.9), ("e", 0.1), ("f", 0.9)]
    ]
    assert choose(rows, each=2) == ([4, 1], [3, 5])
    assert choose(rows) == ([4, 1, 0], [3, 5])
    assert choose(rows[:1]) == ([0], []) and choose([]) == ([], [])


def test_heatmap():
    drawn = heatmap([[8, 2, 0], [5, 5, 0], [0, 0, 0]], ["x", "y", "z"])
    assert drawn.cells == [(0, 0, 0.8, 8), (0, 1, 0.2, 2), (1, 0, 0.5, 5), (1, 1, 0.5, 5)]
    assert drawn.mistakes == [(1, 0, 0.5, 5), (0, 1, 0.2, 2)]
    assert heatmap([[8, 2], [4, 6]], ["x", "y"], drawn=2).cells == [(0, 0, 0.8, 8), (1, 1, 0.6, 6)]


@pytest.mark.parametrize("high", [1e-9, 0.07, 0.3, 0.6834, 1, 2.31, 7, 1234, 1e6])
def test_ticks(high):
    marks = ticks(high)
    assert marks[0] == 0 and marks[-1] >= high * (1 - 1e-6) and 2 <= len(marks) <= 6


def test_charts_of_little():
    assert charts([]) == [] and charts([{"step": 1, "epoch": 0.1, "lr": 1.0}]) == []
    only = charts([{"step": 0, "epoch": 0, "loss": 0.0}])
    assert len(only) == 1 and "nan" not in only[0].lines[0].points


def test_page_without_pictures_has_no_copy_of_the_data(tmp_path):
    found = pictures(3)
    report = write_report(tmp_path, evaluation(found), LABELS, None)
    page = (tmp_path / "report.html").read_text()
    assert (
        "data:image" not in page
        and "<h2>Images" not in page
        and "<h2>Confusion" in page
        and len(report["images"]) == 3
    )


def test_page_explains_the_metric(tmp_path):
    found = pictures(3)
    report = write_report(tmp_path, evaluation(found), LABELS, None, explain=True)
    page = (tmp_path / "report.html").read_text()
    assert "What others would call mIoU" in page and all(
        row["rule"] in html.unescape(page) for row in report["conventions"]
    )
