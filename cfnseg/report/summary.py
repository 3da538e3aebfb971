"""The numbers of a report as plain data: what report.json holds and the other two files show."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from cfnseg.data.labels import LabelMap
from cfnseg.evaluation.segmentation import Evaluation
from cfnseg.metrics.calibration import expected_calibration_error
from cfnseg.metrics.confusion import iou_of
from cfnseg.metrics.conventions import conventions
from cfnseg.metrics.sizes import LIMITS, SIZES
from cfnseg.metrics.trimap import WIDTHS
from cfnseg.metrics.uncertainty import bootstrap, bootstrap_miou


def summary_of(result: Evaluation, labels: LabelMap, facts: dict[str, str], explain: bool = False) -> dict[str, Any]:
    """The content of report.json.

    Args:
        result: what was counted.
        labels: the classes, in the order of ``result.confusion``.
        facts: lines that say what was scored.
        explain: add conventions: library, miou, rule and why of what others would call mIoU (`cfnseg.metrics.conventions`).

    Returns:
        miou, miou_ci95 [low, high], miou_divisor, pixel_accuracy, mean_accuracy, boundary_miou, boundary_miou_ci95, image_map,
        loss, num_images; unpredicted_pixels: counted ones to which a mask gives no class;
        classes: name, id (raw), iou, iou_ci95, recall, precision, boundary_iou, sizes (IoU by name of a size), truth_pixels,
        predicted_pixels, image_ap of each; trimap: width (pixels) and miou of each band; sizes: name, from_pixels, to_pixels
        (exclusive; None = no limit), miou and truth_pixels of each size of segments; calibration: ece and bins (low, high,
        pixels, mean confidence, accuracy); confusion: C x C pixels, rows = truth; facts; images: name, miou (over the classes
        that the image's truth or prediction has), pixel_accuracy and counts (true positives, truth and predicted pixels by
        class) of each. Scores are in 0..1; None where nothing was counted, so it is strict JSON: trimap and sizes (of a class
        too) without details, calibration without details or without a model.
    """
    scores, ends = result.scores, bootstrap(result.counts)
    _, truth, predicted = result.counts.sum(0)
    image_map, image_ap = result.image_map()
    details = result.details
    edges = result.counts[:0] if details is None else details.boundary
    boundary = iou_of(edges.sum(0))
    sizes = None if details is None else iou_of(details.sizes)
    classes = [{
        "name": label.name, "id": label.id, "iou": finite(scores.iou[c]), "iou_ci95": [finite(x) for x in ends.classes[c]],
        "recall": finite(scores.recall[c]), "precision": finite(scores.precision[c]), "boundary_iou": finite(boundary[c]),
        "sizes": None if details is None else {name: finite(x) for name, x in zip(SIZES, sizes[:, c])}, "truth_pixels": int(truth[c]),
        "predicted_pixels": int(predicted[c]), "image_ap": finite(image_ap[c])} for c, label in enumerate(labels.labels)]
    return {
        "miou": finite(scores.miou), "miou_ci95": [finite(x) for x in ends.miou], "miou_divisor": scores.divisor,
        "pixel_accuracy": finite(scores.pixel_accuracy), "mean_accuracy": finite(scores.mean_accuracy),
        "boundary_miou": mean_known(boundary), "boundary_miou_ci95": [finite(x) for x in bootstrap_miou(edges)],
        "image_map": finite(image_map), "loss": finite(result.loss), "num_images": len(result.names),
        "unpredicted_pixels": int(truth.sum() - result.confusion.sum()), "classes": classes,
        "trimap": None if details is None else [
            {"width": width, "miou": mean_known(iou_of(counts))} for width, counts in zip(WIDTHS, details.trimap)],
        "sizes": None if details is None else [
            {"name": name, "from_pixels": low, "to_pixels": high, "miou": mean_known(iou), "truth_pixels": int(counts[1].sum())}
            for name, low, high, iou, counts in zip(SIZES, (1, *LIMITS), (*LIMITS, None), sizes, details.sizes)],
        "calibration": None if result.calibration is None else _calibration(result.calibration),
        **({"conventions": [asdict(row) | {"miou": finite(row.miou)} for row in conventions(result.counts)]} if explain else {}),
        "confusion": result.confusion.tolist(), "facts": facts,
        "images": [_image(name, counts) for name, counts in zip(result.names, result.counts)]}


def _calibration(counts: np.ndarray) -> dict[str, Any]:
    ends = np.linspace(0, 1, len(counts) + 1).tolist()
    bins = [{"low": low, "high": high, "pixels": int(pixels), "confidence": sure / pixels if pixels else None,
             "accuracy": right / pixels if pixels else None} for low, high, (pixels, sure, right) in zip(ends, ends[1:], counts.tolist())]
    return {"ece": finite(expected_calibration_error(counts)), "bins": bins}


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
