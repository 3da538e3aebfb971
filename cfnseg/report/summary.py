"""The numbers of a report as plain data: what report.json holds and the other two files show."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cfnseg.data.labels import LabelMap
from cfnseg.engine.evaluate import Evaluation
from cfnseg.metrics.confusion import counts_of, iou_of


def summary_of(result: Evaluation, labels: LabelMap, facts: dict[str, str]) -> dict[str, Any]:
    """The content of report.json.

    Args:
        result: what was counted.
        labels: the classes, in the order of ``result.confusion``.
        facts: lines that say what was scored.

    Returns:
        miou, miou_ci95 [low, high], miou_divisor, pixel_accuracy, mean_accuracy, boundary_miou, image_map, loss, num_images;
        classes: name, id (raw), iou, recall, precision, boundary_iou, truth_pixels, predicted_pixels, image_ap of each;
        confusion: C x C pixels, rows = truth; facts; images: name, miou (over the classes that the image's truth or
        prediction has) and pixel_accuracy of each. Scores are in 0..1; None where nothing was counted, so it is strict JSON.
    """
    scores = result.scores
    _, truth, predicted = counts_of(result.confusion)
    image_map, image_ap = result.image_map()
    none = np.full(len(labels), np.nan)
    boundary = none if result.boundary is None else iou_of(result.boundary.sum(0))
    classes = [{
        "name": label.name, "id": label.id, "iou": _score(scores.iou[c]), "recall": _score(scores.recall[c]),
        "precision": _score(scores.precision[c]), "boundary_iou": _score(boundary[c]), "truth_pixels": int(truth[c]),
        "predicted_pixels": int(predicted[c]), "image_ap": _score(image_ap[c])} for c, label in enumerate(labels.labels)]
    return {
        "miou": _score(scores.miou), "miou_ci95": [_score(x) for x in result.miou_ci95()], "miou_divisor": scores.divisor,
        "pixel_accuracy": _score(scores.pixel_accuracy), "mean_accuracy": _score(scores.mean_accuracy),
        "boundary_miou": _mean(boundary), "image_map": _score(image_map), "loss": _score(result.loss),
        "num_images": len(result.names), "classes": classes, "confusion": result.confusion.tolist(), "facts": facts,
        "images": [_image(name, counts) for name, counts in zip(result.names, result.counts)]}


def _image(name: str, counts: np.ndarray) -> dict[str, Any]:
    hit, truth, _ = counts.sum(1)
    return {"name": name, "miou": _mean(iou_of(counts)), "pixel_accuracy": float(hit / truth) if truth else None}


def _score(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
