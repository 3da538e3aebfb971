"""`write_label_report`: the report on a net that gives each image one label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.data.labels import ClassNames
from cfnseg.evaluation.classification import ImageEvaluation
from cfnseg.metrics.classification import average_precision
from cfnseg.metrics.uncertainty import bootstrap_mean
from cfnseg.report.files import write_files
from cfnseg.report.label_markdown import label_markdown
from cfnseg.report.label_page import label_page
from cfnseg.report.summary import finite, mean_known


def write_label_report(folder: str | Path, result: ImageEvaluation, classes: ClassNames, image: Callable[[int], np.ndarray], *,
                       facts: Mapping[str, object] | None = None, run_folder: str | Path | None = None) -> dict[str, Any]:
    """Write report.json, report.md and report.html.

    Args:
        folder: where to; made if missing, files of an older report are replaced.
        result: what was counted.
        classes: the classes, in the order of ``result.scores``.
        image: index of an image in ``result.names`` -> its RGB (H, W, 3) uint8; called for the few images that the page shows.
        facts: lines that say what was scored: data, split, weights, command.
        run_folder: a training run whose config.json and log.jsonl go into the page.

    Returns:
        What report.json holds; see `label_summary`.

    Raises:
        UserError: the folder cannot be written; whatever ``image`` raises. The numbers are written before the pictures are
            drawn, so that a failure there loses none.
    """
    summary = label_summary(result, classes, {key: str(value) for key, value in (facts or {}).items()})
    write_files(folder, summary, label_markdown(summary), lambda: label_page(summary, image, run_folder))
    return summary


def label_summary(result: ImageEvaluation, classes: ClassNames, facts: dict[str, str]) -> dict[str, Any]:
    """The content of report.json.

    Args:
        result: what was counted.
        classes: the classes, in the order of ``result.scores``.
        facts: lines that say what was scored.

    Returns:
        top1_error, top1_error_ci95 [low, high], top5_error, mean_class_error (over the classes that have images), loss,
        num_images; classes: name, images, error (share of its images that are taken for others), precision,
        average_precision of each; confusion: C x C images, rows = truth; facts; images: name, truth, prediction, confidence
        (probability of the prediction) and rank of the truth (1 = right) of each. Scores are in 0..1; None where nothing was
        counted, so it is strict JSON.
    """
    targets, scores, names = result.targets, result.scores, classes.names
    prediction, rank = judged(scores, targets)
    wrong = (rank > 1).astype(np.float64)
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (targets, prediction), 1)
    images, predicted, hits = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    with np.errstate(invalid="ignore"):  # 0 / 0 is nan: nothing was counted
        error, precision = 1 - hits / images, hits / predicted
    confidence = scores[np.arange(len(targets)), prediction]
    return {
        "top1_error": mean_known(wrong), "top1_error_ci95": [finite(x) for x in bootstrap_mean(wrong)],
        "top5_error": mean_known(rank > min(5, len(names))), "mean_class_error": mean_known(error),
        "loss": finite(result.loss), "num_images": len(targets),
        "classes": [{"name": name, "images": int(images[c]), "error": finite(error[c]), "precision": finite(precision[c]),
                     "average_precision": finite(average_precision(scores[:, c], targets == c))} for c, name in enumerate(names)],
        "confusion": confusion.tolist(), "facts": facts,
        "images": [{"name": name, "truth": names[t], "prediction": names[p], "confidence": finite(s), "rank": int(r)}
                   for name, t, p, s, r in zip(result.names, targets, prediction, confidence, rank)]}


def judged(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The predicted class and the rank of the true one (1 = right) of each image.

    Args:
        scores: (images, C) higher = more likely.
        targets: (images,) int64 true class.

    Returns:
        Two (images,) int64. As in `cfnseg.metrics.classification.top_errors` equal scores count against the image, and the
        prediction is then another class, so that the confusion matrix has the same error. Scores that are nan count as higher.
    """
    own = np.take_along_axis(scores, targets[:, None], 1)
    rank = (~(scores < own)).sum(1)
    others = scores.copy()
    np.put_along_axis(others, targets[:, None], -np.inf, 1)
    return np.where(rank > 1, others.argmax(1), targets), rank
