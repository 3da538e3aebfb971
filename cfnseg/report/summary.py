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
        prediction has), pixel_accuracy and counts (true positives, truth and predicted pixels by class) of each. Scores are
        in 0..1; None where nothing was counted, so it is strict JSON.
    """
    scores = result.scores
    _, truth, predicted = counts_of(result.confusion)
    image_map, image_ap = result.image_map()
    none = np.full(len(labels), np.nan)
    boundary = none if result.boundary is None else iou_of(result.boundary.sum(0))
    classes = [{
        "name": label.name, "id": label.id, "iou": finite(scores.iou[c]), "recall": finite(scores.recall[c]),
        "precision": finite(scores.precision[c]), "boundary_iou": finite(boundary[c]), "truth_pixels": int(truth[c]),
        "predicted_pixels": int(predicted[c]), "image_ap": finite(image_ap[c])} for c, label in enumerate(labels.labels)]
    return {
        "miou": finite(scores.miou), "miou_ci95": [finite(x) for x in result.miou_ci95()], "miou_divisor": scores.divisor,
        "pixel_accuracy": finite(scores.pixel_accuracy), "mean_accuracy": finite(scores.mean_accuracy),
        "boundary_miou": mean_known(boundary), "image_map": finite(image_map), "loss": finite(result.loss),
        "num_images": len(result.names), "classes": classes, "confusion": result.confusion.tolist(), "facts": facts,
        "images": [_image(name, counts) for name, counts in zip(result.names, result.counts)]}


def _image(name: str, counts: np.ndarray) -> dict[str, Any]:
    hit, truth, _ = counts.sum(1)
    return {"name": name, "miou": mean_known(iou_of(counts)), "pixel_accuracy": float(hit / truth) if truth else None,
            "counts": counts.tolist()}


def finite(value: float) -> float | None:
    """A score, or None where nothing was counted (nan)."""
    return float(value) if math.isfinite(value) else None


def mean_known(values: np.ndarray) -> float | None:
    """The mean without the nans; None if there is nothing else."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
