"""The report on sigmoid outputs, whose classes may overlap: no confusion matrix, but Dice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cfnseg.data.dataset import is_trained_on
from cfnseg.data.labels import LabelMap
from cfnseg.evaluation.overlap import OverlapEvaluation
from cfnseg.metrics.confusion import iou_of, known_mean
from cfnseg.metrics.dice import GRID, dice_interval, dice_of, image_dice, mean_interval
from cfnseg.metrics.uncertainty import bootstrap, bootstrap_miou
from cfnseg.report.gallery import Picture, gallery
from cfnseg.report.html import report_page
from cfnseg.report.segmentation_page import SEEN
from cfnseg.report.segmentation_report import finite, mean_known
from cfnseg.report.text import Column, Report, ends, percent, score, score_column, write_files

RULE = (
    "All scores are in percent. Each class is counted alone over the whole split, at the truth's "
    "native size, ignored pixels left out; IoU = TP / (TP + FP + FN), Dice = 2 TP / (2 TP + FP + "
    "FN). Means are over the classes with a non-empty union. Image Dice is the mean over images: "
    "an image without a class in truth and prediction has none, one with false pixels alone has 0. "
    "Images of one video are not independent; the interval is then too narrow."
)
TUNED = "The thresholds were tuned on these images, so the scores are a little too high."


def write_overlap_report(
    folder: str | Path,
    result: OverlapEvaluation,
    labels: LabelMap,
    picture: Callable[[int], Picture] | None,
    *,
    score: Mapping[str, object],
    facts: Mapping[str, object],
    run_folder: str | Path | None = None,
) -> dict[str, Any]:
    """Write report.json, report.md and report.html.

    Args:
        folder, facts, run_folder: as of `cfnseg.report.segmentation_report.write_report`.
        result: what was counted, boundaries included.
        labels: the classes.
        picture: index -> RGB (H, W, 3), truth and prediction as layers (H, W, C), all uint8; None =
            a page without pictures.
        score: of the weights: data and split say where the thresholds were tuned.

    Returns:
        What report.json holds; see `overlap_summary`.

    Raises:
        UserError: the folder cannot be written; whatever ``picture`` raises.
    """
    known = {key: str(value) for key, value in facts.items()}
    summary = overlap_summary(result, labels, known)
    source = [str(score.get(key, "")) for key in ("data", "split") if "thresholds" in score]
    summary["thresholds_tuned_on"] = " ".join(source) or None
    summary["thresholds_tuned_here"] = source == [known.get("data"), known.get("split")]
    page = _describe(summary)
    write_files(
        folder,
        "report",
        summary,
        page.markdown([], known),
        lambda: report_page(
            "segmentation",
            page,
            known,
            run_folder,
            bars=[row["iou"] or 0 for row in summary["classes"]],
            whiskers=[row["iou"] is not None and row["iou_ci95"] for row in summary["classes"]],
            colors=[label.color for label in labels.labels],
            gallery=gallery(summary["images"] if picture else [], picture, labels),
            heatmap={"cells": []},
            **dict.fromkeys(("trimap", "reliability", "decisions", "conventions", "sizes")),
        ),
    )
    return summary


def overlap_summary(
    result: OverlapEvaluation, labels: LabelMap, facts: dict[str, str]
) -> dict[str, Any]:
    """The content of report.json, strict JSON: scores in 0..1, None where nothing was counted.

    Returns:
        * output: "sigmoid".
        * miou, miou_ci95 [low, high], miou_divisor, mean_dice, mean_dice_ci95, image_dice (the mean
          over images), image_dice_ci95, boundary_miou, boundary_miou_ci95, image_map, loss,
          num_images.
        * classes: name, id (raw), threshold, iou, iou_ci95, dice, image_dice, recall, precision,
          boundary_iou, truth_pixels, predicted_pixels, image_ap, and dice_by_threshold (at those of
          ``grid``).
        * grid: the thresholds that were tried.
        * facts; `write_overlap_report` adds thresholds_tuned_on and thresholds_tuned_here.
        * images: name, miou, dice (means over the classes in truth or prediction) and counts (true
          positives, truth and predicted pixels by class).
    """
    counts, scores = result.counts, result.scores
    interval, each = bootstrap(counts), dice_of(counts)
    edges = counts[:0] if result.boundary is None else result.boundary
    boundary, dice, by_threshold = (
        iou_of(edges.sum(0)),
        dice_of(counts.sum(0)),
        dice_of(result.grid),
    )
    image_map, image_ap = result.image_map()
    of_image = image_dice(counts)
    classes = [
        {
            "name": label.name,
            "id": label.id,
            "threshold": float(result.thresholds[c]),
            "iou": finite(scores.iou[c]),
            "iou_ci95": [finite(x) for x in interval.classes[c]],
            "dice": finite(dice[c]),
            "image_dice": mean_known(each[:, c]),
            "recall": finite(scores.recall[c]),
            "precision": finite(scores.precision[c]),
            "boundary_iou": finite(boundary[c]),
            "truth_pixels": int(counts[:, 1, c].sum()),
            "predicted_pixels": int(counts[:, 2, c].sum()),
            "image_ap": finite(image_ap[c]),
            "dice_by_threshold": [finite(x) for x in by_threshold[:, c]],
        }
        for c, label in enumerate(labels.labels)
    ]
    return {
        "output": "sigmoid",
        "miou": finite(scores.miou),
        "miou_ci95": [finite(x) for x in interval.miou],
        "miou_divisor": scores.divisor,
        "mean_dice": finite(known_mean(dice)),
        "mean_dice_ci95": [finite(x) for x in dice_interval(counts)],
        "image_dice": finite(known_mean(of_image)),
        "image_dice_ci95": [finite(x) for x in mean_interval(of_image)],
        "boundary_miou": mean_known(boundary),
        "boundary_miou_ci95": [finite(x) for x in bootstrap_miou(edges)],
        "image_map": finite(image_map),
        "loss": finite(result.loss),
        "num_images": len(result.names),
        "classes": classes,
        "grid": [round(float(t), 2) for t in GRID],
        "facts": facts,
        "images": [
            {
                "name": name,
                "miou": mean_known(iou_of(own)),
                "dice": finite(one),
                "counts": own.tolist(),
            }
            for name, own, one in zip(result.names, counts, of_image)
        ],
    }


def _weakest(classes: list[dict[str, Any]]) -> str:
    """The sentence on the class of the lowest IoU: has it more missed or more false pixels?"""
    known = [row for row in classes if row["iou"] is not None]
    if not known:
        return "No pixel of a class was counted."
    worst = min(known, key=lambda row: row["iou"])
    start = f"Weakest: {worst['name']}, IoU {percent(worst['iou'])}"
    if not worst["truth_pixels"]:
        return f"{start}; it is in no truth, but predicted for {worst['predicted_pixels']:,} px."
    if worst["predicted_pixels"] > worst["truth_pixels"]:
        what, value = "false pixels, precision", worst["precision"]
    else:
        what, value = "missed pixels, recall", worst["recall"]
    return f"{start}; more of its mistakes are {what} {percent(value)}."


def _describe(summary: dict[str, Any]) -> Report:
    """What both files show."""
    classes = summary["classes"]

    def scores(title: str, key: str, **more: bool) -> Column:
        return score_column(title, [row[key] for row in classes], **more)

    def pixels(title: str, key: str) -> Column:
        values = [row[key] for row in classes]
        return Column(title, values, [f"{value:,} px" for value in values], needed=True)

    ids, limits = [row["id"] for row in classes], [row["threshold"] for row in classes]
    intervals = ["-" if row["iou"] is None else ends(row["iou_ci95"]) for row in classes]
    tuned = summary["thresholds_tuned_on"]
    source = f"The thresholds were tuned on {tuned}." if tuned else "The thresholds are 0.5."
    lead = [TUNED] if summary["thresholds_tuned_here"] else []
    seen = [SEEN] if is_trained_on(summary["facts"].get("split", "")) else []
    return Report(
        "Segmentation",
        " ".join([*seen, *lead, _weakest(classes)]),
        "mIoU",
        f"over {summary['miou_divisor']} of {len(classes)} classes, which may overlap",
        summary["miou"],
        summary["miou_ci95"],
        summary["num_images"],
        _cards(summary),
        f"{RULE} {source}",
        "A heading sorts by its column. The line on a bar is the 95 % interval over images.",
        [row["name"] for row in classes],
        [
            Column("Id", ids, [str(value) for value in ids], on_page=False, needed=True),
            scores("IoU", "iou", needed=True),
            Column("95 %", ids, intervals, on_page=False),
            scores("Dice", "dice", needed=True),
            scores("Image Dice", "image_dice"),
            scores("Recall", "recall"),
            scores("Precision", "precision"),
            scores("Boundary IoU", "boundary_iou"),
            scores("Image AP", "image_ap"),
            Column("Threshold", limits, [f"{value:.2f}" for value in limits], needed=True),
            pixels("Truth", "truth_pixels"),
            pixels("Predicted", "predicted_pixels"),
        ],
        [],
        "{:,} px".format,
    )


def _cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, number and note of each score next to mIoU; uncounted scores have none."""
    edges = ends(summary["boundary_miou_ci95"])
    scores = [
        ("mean Dice", "mean_dice", f"{ends(summary['mean_dice_ci95'])}, mean over the classes"),
        ("image Dice", "image_dice", f"{ends(summary['image_dice_ci95'])}, mean over the images"),
        ("boundary mIoU", "boundary_miou", f"{edges}, edges 2\u00a0% of the diagonal wide"),
        ("image-head mAP", "image_map", "classes in an image"),
        ("loss", "loss", "mean binary cross-entropy"),
    ]
    cards = [
        (name, score(summary[key], name), note)
        for name, key, note in scores
        if summary[key] is not None
    ]
    return [*cards, ("images", f"{summary['num_images']:,}", "scored")]
