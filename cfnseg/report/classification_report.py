"""`write_classification_report`: the report on a network that gives each image one class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.data.labels import ClassNames
from cfnseg.evaluation.classification import ImageEvaluation
from cfnseg.metrics.ranking import average_precision
from cfnseg.metrics.uncertainty import bootstrap_mean
from cfnseg.report.classification_page import classification_page, markdown_of
from cfnseg.report.segmentation_report import finite, mean_known
from cfnseg.report.text import write_files


def write_classification_report(
    folder: str | Path,
    result: ImageEvaluation,
    classes: ClassNames,
    image: Callable[[int], np.ndarray],
    *,
    facts: Mapping[str, object] | None = None,
    run_folder: str | Path | None = None,
) -> dict[str, Any]:
    """Write report.json, report.md and report.html.

    Args:
        folder: where to; made if missing, files of an older report are replaced.
        result: what was counted.
        classes: the classes, in the order of ``result.scores``.
        image: index of an image in ``result.names`` -> its RGB (H, W, 3) uint8. It is called for
            the few images that the page shows.
        facts: what was scored: data, split, weights, command.
        run_folder: a training run whose config.json and log.jsonl go into the page.

    Returns:
        What report.json holds; see `summary_of`.

    Raises:
        UserError: the folder cannot be written; whatever ``image`` raises. The numbers are written
            before pictures are drawn, so a failure there loses none.
    """
    summary = summary_of(result, classes, {key: str(value) for key, value in (facts or {}).items()})
    write_files(
        folder,
        "report",
        summary,
        markdown_of(summary),
        lambda: classification_page(summary, image, run_folder),
    )
    return summary


def summary_of(
    result: ImageEvaluation, classes: ClassNames, facts: dict[str, str]
) -> dict[str, Any]:
    """The content of report.json, strict JSON.

    Args:
        result: what was counted.
        classes: the classes, in the order of ``result.scores``.
        facts: what was scored.

    Returns:
        Scores in 0..1, None where nothing was counted:

        * top1_error, top1_error_ci95 [low, high], top5_error, mean_class_error (over the classes
          that have images), loss, num_images.
        * classes: name, images, error (share of its images taken for other classes), precision,
          average_precision.
        * confusion: C x C images, rows = truth.
        * facts.
        * images: name, truth, prediction, confidence (probability of the prediction) and rank of
          the truth (1 = right).
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
    precisions = [average_precision(scores[:, c], targets == c) for c in range(len(names))]
    return {
        "top1_error": mean_known(wrong),
        "top1_error_ci95": [finite(x) for x in bootstrap_mean(wrong)],
        "top5_error": mean_known(rank > min(5, len(names))),
        "mean_class_error": mean_known(error),
        "loss": finite(result.loss),
        "num_images": len(targets),
        "classes": [
            {
                "name": name,
                "images": int(images[c]),
                "error": finite(error[c]),
                "precision": finite(precision[c]),
                "average_precision": finite(precisions[c]),
            }
            for c, name in enumerate(names)
        ],
        "confusion": confusion.tolist(),
        "facts": facts,
        "images": [
            {
                "name": name,
                "truth": names[t],
                "prediction": names[p],
                "confidence": finite(s),
                "rank": int(r),
            }
            for name, t, p, s, r in zip(result.names, targets, prediction, confidence, rank)
        ],
    }


def judged(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The predicted class and the rank of the true class (1 = right) of each image.

    Equal scores count against the image, as in `cfnseg.metrics.ranking.top_errors`. The
    prediction is then another class, so the confusion matrix has the same error. A nan counts as
    higher than any score.

    Args:
        scores: (images, C), higher = more likely.
        targets: (images,) int64 true class.

    Returns:
        Two (images,) int64.
    """
    own = np.take_along_axis(scores, targets[:, None], 1)
    rank = (~(scores < own)).sum(1)
    others = scores.copy()
    np.put_along_axis(others, targets[:, None], -np.inf, 1)
    return np.where(rank > 1, others.argmax(1), targets), rank
