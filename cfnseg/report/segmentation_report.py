"""`write_report`: the report on a segmentation, from what an evaluation counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.data.labels import LabelMap
from cfnseg.evaluation.decisions import Decisions
from cfnseg.evaluation.segmentation import Evaluation
from cfnseg.metrics.calibration import expected_calibration_error
from cfnseg.metrics.confusion import iou_of
from cfnseg.metrics.conventions import conventions
from cfnseg.metrics.segments import LIMITS, SIZES
from cfnseg.metrics.trimap import WIDTHS
from cfnseg.metrics.uncertainty import bootstrap, bootstrap_miou
from cfnseg.report.gallery import Picture
from cfnseg.report.segmentation_page import markdown_of, segmentation_page
from cfnseg.report.stages_section import decisions_of
from cfnseg.report.text import write_files


def write_report(
    folder: str | Path,
    result: Evaluation,
    labels: LabelMap,
    picture: Callable[[int], Picture] | None,
    *,
    facts: Mapping[str, object] | None = None,
    run_folder: str | Path | None = None,
    explain: bool = False,
    decisions: Decisions | None = None,
) -> dict[str, Any]:
    """Write report.json, report.md and report.html.

    Args:
        folder: where to; made if missing, files of an older report are replaced.
        result: what was counted.
        labels: the classes, in the order of ``result.confusion``.
        picture: index of an image in ``result.names`` -> RGB (H, W, 3) uint8, truth and prediction
            (H, W) uint8 train ids. It is called for the few images that the page shows. None = a
            page without pictures, which has no copy of the data.
        facts: what was scored: data, split, weights, command.
        run_folder: a training run whose config.json and log.jsonl go into the page.
        explain: add what other libraries would call mIoU.
        decisions: which branch decides which class, of a CFN.

    Returns:
        What report.json holds; see `summary_of`.

    Raises:
        UserError: the folder cannot be written; whatever ``picture`` raises. The numbers are
            written before pictures are drawn, so a failure there loses none.
    """
    known = {key: str(value) for key, value in (facts or {}).items()}
    summary = summary_of(result, labels, known, explain, decisions)
    write_files(
        folder,
        "report",
        summary,
        markdown_of(summary),
        lambda: segmentation_page(summary, labels, picture, run_folder),
    )
    return summary


def summary_of(
    result: Evaluation,
    labels: LabelMap,
    facts: dict[str, str],
    explain: bool = False,
    decisions: Decisions | None = None,
) -> dict[str, Any]:
    """The content of report.json, strict JSON.

    Args:
        result: what was counted.
        labels: the classes, in the order of ``result.confusion``.
        facts: what was scored.
        explain: add conventions: library, miou, rule and why (`cfnseg.metrics.conventions`).
        decisions: see `write_report`.

    Returns:
        Scores in 0..1, None where nothing was counted:

        * miou, miou_ci95 [low, high], miou_divisor, pixel_accuracy, mean_accuracy, boundary_miou,
          boundary_miou_ci95, image_map, loss, num_images.
        * unpredicted_pixels: counted pixels to which a mask gives no class.
        * classes: name, id (raw), iou, iou_ci95, recall, precision, boundary_iou, sizes (IoU by
          name of a size, or None), truth_pixels, predicted_pixels, image_ap.
        * trimap: width (pixels) and miou of each band; None without details.
        * sizes: name, from_pixels, to_pixels (exclusive; None = no limit), miou and truth_pixels
          of each size of segments; None without details.
        * calibration: ece and bins (low, high, pixels, mean confidence, accuracy); None without
          details or without a model.
        * decisions: see `cfnseg.report.stages_section.decisions_of`.
        * confusion: C x C pixels, rows = truth.
        * facts.
        * images: name, miou (over the classes in the image's truth or prediction), pixel_accuracy
          and counts (true positives, truth and predicted pixels by class).
    """
    scores, ends = result.scores, bootstrap(result.counts)
    _, truth, predicted = result.counts.sum(0)
    image_map, image_ap = result.image_map()
    details = result.details
    edges = result.counts[:0] if details is None else details.boundary
    boundary = iou_of(edges.sum(0))
    sizes = None if details is None else iou_of(details.sizes)
    classes = [
        {
            "name": label.name,
            "id": label.id,
            "iou": finite(scores.iou[c]),
            "iou_ci95": [finite(x) for x in ends.classes[c]],
            "recall": finite(scores.recall[c]),
            "precision": finite(scores.precision[c]),
            "boundary_iou": finite(boundary[c]),
            "sizes": None if sizes is None else dict(zip(SIZES, map(finite, sizes[:, c]))),
            "truth_pixels": int(truth[c]),
            "predicted_pixels": int(predicted[c]),
            "image_ap": finite(image_ap[c]),
        }
        for c, label in enumerate(labels.labels)
    ]
    summary = {
        "miou": finite(scores.miou),
        "miou_ci95": [finite(x) for x in ends.miou],
        "miou_divisor": scores.divisor,
        "pixel_accuracy": finite(scores.pixel_accuracy),
        "mean_accuracy": finite(scores.mean_accuracy),
        "boundary_miou": mean_known(boundary),
        "boundary_miou_ci95": [finite(x) for x in bootstrap_miou(edges)],
        "image_map": finite(image_map),
        "loss": finite(result.loss),
        "num_images": len(result.names),
        "unpredicted_pixels": int(truth.sum() - result.confusion.sum()),
        "classes": classes,
        "trimap": None,
        "sizes": None,
        "calibration": None,
        "decisions": decisions_of(decisions, labels),
        "confusion": result.confusion.tolist(),
        "facts": facts,
        "images": [_image(name, counts) for name, counts in zip(result.names, result.counts)],
    }
    if details is not None:
        limits = zip(SIZES, (1, *LIMITS), (*LIMITS, None), sizes, details.sizes)
        summary["trimap"] = [
            {"width": width, "miou": mean_known(iou_of(counts))}
            for width, counts in zip(WIDTHS, details.trimap)
        ]
        summary["sizes"] = [
            {
                "name": name,
                "from_pixels": low,
                "to_pixels": high,
                "miou": mean_known(iou),
                "truth_pixels": int(counts[1].sum()),
            }
            for name, low, high, iou, counts in limits
        ]
    if result.calibration is not None:
        summary["calibration"] = _calibration(result.calibration)
    if explain:
        summary["conventions"] = [
            asdict(row) | {"miou": finite(row.miou)} for row in conventions(result.counts)
        ]
    return summary


def _calibration(counts: np.ndarray) -> dict[str, Any]:
    ends = np.linspace(0, 1, len(counts) + 1).tolist()
    bins = [
        {
            "low": low,
            "high": high,
            "pixels": int(pixels),
            "confidence": sure / pixels if pixels else None,
            "accuracy": right / pixels if pixels else None,
        }
        for low, high, (pixels, sure, right) in zip(ends, ends[1:], counts.tolist())
    ]
    return {"ece": finite(expected_calibration_error(counts)), "bins": bins}


def _image(name: str, counts: np.ndarray) -> dict[str, Any]:
    hit, truth, _ = counts.sum(1)
    return {
        "name": name,
        "miou": mean_known(iou_of(counts)),
        "pixel_accuracy": float(hit / truth) if truth else None,
        "counts": counts.tolist(),
    }


def finite(value: float) -> float | None:
    """A score, or None where nothing was counted (nan)."""
    return float(value) if math.isfinite(value) else None


def mean_known(values: np.ndarray) -> float | None:
    """The mean without the nans; None if there is nothing else."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
