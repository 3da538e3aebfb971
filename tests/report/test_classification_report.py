"""The report on a classification."""

import json
import re

import numpy as np
import pytest
import sklearn.metrics
from test_segmentation_report import Loads, strict

from cfnseg.data.labels import ClassNames
from cfnseg.drawing import thumbnail
from cfnseg.errors import UserError
from cfnseg.evaluation.classification import ImageEvaluation
from cfnseg.metrics.ranking import average_precision
from cfnseg.metrics.uncertainty import bootstrap_mean
from cfnseg.report.charts import charts
from cfnseg.report.classification_report import judged, write_classification_report
from cfnseg.report.gallery import choose_tiles, tiles

KEYS = {
    "top1_error",
    "top1_error_ci95",
    "top5_error",
    "mean_class_error",
    "loss",
    "num_images",
    "classes",
    "confusion",
    "facts",
    "images",
}
NAMES = ClassNames(
    [
        "cat",
        "car | van",
        "<script>alert(1)</script>",
        "sky",
        'a "b" & c',
        "plane",
        "frog",
        "nowhere",
    ]
)
EMPTY = ImageEvaluation([], np.zeros(0, np.int64), np.zeros((0, 8), np.float32), float("nan"))


def evaluation(count: int = 200, classes: int = 8, filled: int = 7) -> ImageEvaluation:
    """Softmax scores, about two thirds right; the classes from ``filled`` on have no images."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, filled, count)
    logits = rng.normal(size=(count, classes)) + 2 * np.eye(classes)[targets]
    logits[:, filled:] -= 9  # and nothing is taken for them
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return ImageEvaluation(
        [f"image_{i:04d}" for i in range(count)], targets, scores.astype(np.float32), 0.75
    )


def noise(side: int = 32):
    return lambda index: np.random.default_rng(index).integers(
        0, 256, (side, side, 3), dtype=np.uint8
    )


def test_numbers_are_those_of_scikit_learn(tmp_path):
    result = evaluation()
    report = write_classification_report(
        tmp_path / "new", result, NAMES, noise(), facts={"data": "toy", "images": 200}
    )
    assert strict(tmp_path / "new" / "report.json") == report and set(report) == KEYS
    targets, scores, predicted = result.targets, result.scores, result.scores.argmax(1)
    assert report["top1_error"] == pytest.approx(
        1 - sklearn.metrics.accuracy_score(targets, predicted)
    )
    assert report["top5_error"] == pytest.approx(
        1 - sklearn.metrics.top_k_accuracy_score(targets, scores, k=5, labels=range(8))
    )
    assert (report["top1_error"], report["top5_error"]) == pytest.approx(result.errors)
    assert (
        report["confusion"]
        == sklearn.metrics.confusion_matrix(targets, predicted, labels=range(8)).tolist()
    )
    recall = sklearn.metrics.recall_score(targets, predicted, labels=range(7), average=None)
    precision = sklearn.metrics.precision_score(targets, predicted, labels=range(7), average=None)
    assert [row["error"] for row in report["classes"][:7]] == pytest.approx(1 - recall)
    assert report["mean_class_error"] == pytest.approx(1 - recall.mean())
    assert [row["precision"] for row in report["classes"][:7]] == pytest.approx(precision)
    for c, row in enumerate(report["classes"][:7]):
        assert row["name"] == NAMES.names[c] and row["images"] == (targets == c).sum()
        assert row["average_precision"] == average_precision(scores[:, c], targets == c)
        # without the monotone envelope the area is never larger, and close
        below = sklearn.metrics.average_precision_score(targets == c, scores[:, c])
        assert below <= row["average_precision"] + 1e-9 < below + 0.1
    assert report["classes"][7] == {
        "name": "nowhere",
        "images": 0,
        "error": None,
        "precision": None,
        "average_precision": None,
    }
    assert (
        report["loss"] == 0.75
        and report["num_images"] == 200
        and report["facts"] == {"data": "toy", "images": "200"}
    )
    for i, row in enumerate(report["images"]):
        assert row["name"] == f"image_{i:04d}" and row["truth"] == NAMES.names[targets[i]]
        assert row["prediction"] == NAMES.names[predicted[i]] and row["confidence"] == float(
            scores[i].max()
        )
        assert row["rank"] == 1 + (scores[i] > scores[i, targets[i]]).sum()
    assert {p.name for p in (tmp_path / "new").iterdir()} == {
        "report.json",
        "report.md",
        "report.html",
    }


def test_equal_and_lost_scores_count_against_the_image():
    scores = np.array([[0.5, 0.5, 0], [0.2, 0.3, 0.5], [np.nan] * 3, [0, 0.1, 0.9]], np.float32)
    targets = np.array([0, 1, 2, 2])
    prediction, rank = judged(scores, targets)
    assert (
        prediction.tolist()[:2] == [1, 2]
        and prediction[2] != 2
        and prediction[3] == 2
        and rank.tolist() == [2, 2, 3, 1]
    )
    result = ImageEvaluation(
        ["a", "b", "c"], np.array([0, 1, 2]), np.full((3, 3), 1 / 3, np.float32), 1.1
    )
    assert (
        result.errors[0] == 1 and (judged(result.scores, result.targets)[0] != result.targets).all()
    )


def test_interval(tmp_path):
    widths = []
    for count in (50, 400, 3200):
        report = write_classification_report(tmp_path, evaluation(count), NAMES, noise())
        low, high = report["top1_error_ci95"]
        assert low < report["top1_error"] < high
        normal = 2 * 1.96 * (report["top1_error"] * (1 - report["top1_error"]) / count) ** 0.5
        widths.append(high - low)
        assert widths[-1] == pytest.approx(normal, rel=0.1)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_bootstrap_mean():
    rng = np.random.default_rng(3)
    values = rng.integers(0, 4, 60) / 2
    draws = values[rng.integers(0, 60, (20000, 60))].mean(1)  # the definition, image by image
    assert bootstrap_mean(values) == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.02)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(np.ones(5)) == (1, 1) and np.isnan(bootstrap_mean(np.zeros(0))).all()


def test_markdown(tmp_path):
    report = write_classification_report(
        tmp_path, evaluation(), NAMES, noise(), facts={"split": "test"}
    )
    text = (tmp_path / "report.md").read_text()
    low, high = report["top1_error_ci95"]
    low, high, error = (100 * x for x in (low, high, report["top1_error"]))
    assert (
        f"**top-1 error {error:.1f} (95 % interval {low:.1f} to {high:.1f}, "
        "bootstrap over 200 images)**" in text
    )
    assert (
        "| nowhere | - | - | - | 0 |" in text
        and "car \\| van" in text
        and "- split: `test`" in text
    )
    for name in ("top-5 error", "mean class error"):
        assert re.search(rf"{name} \d+\.\d\b", text)
    assert "loss 0.7500" in text


def test_page_is_alone_and_escaped(tmp_path):
    result = evaluation()
    names = [f'<img src="https://x/{i}" onerror=alert(1)>' for i in range(200)]
    result = ImageEvaluation(names, result.targets, result.scores, result.loss)
    write_classification_report(
        tmp_path, result, NAMES, noise(), facts={"weights": "<b>https://x</b>"}
    )
    page = (tmp_path / "report.html").read_text()
    loads = Loads(page)
    assert loads.fetched and all(value.startswith("data:image/png") for value in loads.fetched)
    assert loads.tags.count("img") == 24 and "link" not in loads.tags and "iframe" not in loads.tags
    assert (
        "<script>alert" not in page
        and "&lt;script&gt;alert(1)" in page
        and "<b>https" not in page
        and '<img src="http' not in page
    )
    assert (
        loads.tags.count("script") == 1
        and 'name="viewport"' in page
        and "prefers-color-scheme: dark" in page
    )
    for text in (
        "Top-1 error",
        "Top-5 error",
        "Mean class error",
        "Most confident mistakes",
        "Least confident right",
        "<h2>Confusion",
    ):
        assert text in page
    assert (
        re.search(r'data-value="-1"><div>.*<span>-</span>', page)
        and page.count('<td data-value="-1">-</td>') == 2
    )


@pytest.mark.parametrize(("classes", "side"), [(100, 32), (1000, 400)])
def test_page_stays_small(tmp_path, classes, side):
    labels = ClassNames(f"a class of some name {i}" for i in range(classes))
    write_classification_report(
        tmp_path, evaluation(5 * classes, classes, classes), labels, noise(side)
    )
    assert (tmp_path / "report.html").stat().st_size < 5e6


def test_no_images(tmp_path):
    report = write_classification_report(
        tmp_path, EMPTY, NAMES, lambda index: pytest.fail("no image to draw")
    )
    assert strict(tmp_path / "report.json") == report
    assert (
        report["top1_error"]
        is report["top5_error"]
        is report["mean_class_error"]
        is report["loss"]
        is None
    )
    assert (
        report["top1_error_ci95"] == [None, None]
        and report["num_images"] == 0
        and report["images"] == []
    )
    assert "**top-1 error -**" in (tmp_path / "report.md").read_text()
    assert "<h2>Confusion" not in (tmp_path / "report.html").read_text()


def test_run_folder(tmp_path):
    config = {"name": "toy_cifar", "optim": {"lr": 0.25}, "environment": {"commit": "abc123"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    rows = [
        {"step": 1, "epoch": 0.5, "loss": 2.0},
        {"step": 2, "epoch": 1, "loss": 1.0},
        {"step": 2, "epoch": 1, "val_loss": 1.5, "val_top1_error": 0.5, "val_top5_error": 0.1},
        {"step": 4, "epoch": 2, "val_loss": 1.2, "val_top1_error": 0.25, "val_top5_error": 0.1},
        {"step": 6, "epoch": 3, "val_loss": 1.3, "val_top1_error": 0.375, "val_top5_error": 0.1},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_classification_report(
        tmp_path / "report",
        evaluation(),
        NAMES,
        noise(),
        facts={"data": "toy"},
        run_folder=tmp_path,
    )
    page = (tmp_path / "report" / "report.html").read_text()
    assert "toy_cifar · toy" in page and "abc123" in page and "<dt>lr</dt><dd>0.25</dd>" in page
    assert (
        "Validation top-1 error" in page
        and "best 25.0 at epoch 2" in page
        and "best 1.2000 at epoch 2" in page
    )
    assert [chart.title for chart in charts(rows)] == [
        "Loss by epoch",
        "Validation top-1 error by epoch",
    ]


def test_failures(tmp_path):
    def unreadable(index):
        raise UserError("image_0.png: cannot be read")

    with pytest.raises(UserError, match="cannot be read"):
        write_classification_report(tmp_path / "report", evaluation(), NAMES, unreadable)
    assert (
        strict(tmp_path / "report" / "report.json")["num_images"] == 200
        and not (tmp_path / "report" / "report.html").exists()
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/report.*cannot be made"):
        write_classification_report(tmp_path / "file" / "report", EMPTY, NAMES, noise())


def test_choice_of_images():
    rows = [
        {"name": n, "confidence": v, "rank": r}
        for n, v, r in [
            ("b", 0.9, 2),
            ("a", 0.9, 3),
            ("c", 0.3, 2),
            ("d", 0.2, 1),
            ("e", 0.8, 1),
            ("f", None, 4),
        ]
    ]
    assert (
        choose_tiles(rows) == ([1, 0, 2], [3, 4])
        and choose_tiles(rows, each=1) == ([1], [3])
        and choose_tiles([]) == ([], [])
    )


def test_thumbnails():
    row = {"name": "a", "confidence": 0.9, "rank": 1}
    tiny, wide = thumbnail(noise()(0), 320), thumbnail(np.zeros((100, 800, 3), np.uint8), 320)
    assert tiny[1:] == (256, 256) and tiny[0].startswith("data:image/png")
    assert wide[1:] == (320, 40) and wide[0].startswith("data:image/jpeg")
    drawn = tiles([dict(row, name=str(i), rank=i % 2 + 1) for i in range(24)], noise(500))
    assert len(drawn["wrong"]) == len(drawn["right"]) == 12 and {
        t.width for ts in drawn.values() for t in ts
    } <= {320, 200, 128}
