"""report.html of a segmentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfnseg.data.labels import LabelMap
from cfnseg.report.gallery import Picture, gallery
from cfnseg.report.markdown import RULE, shown, size_limits, unpredicted
from cfnseg.report.page import Page, Row, render, score_cell
from cfnseg.report.quality import FIFTHS, SHARES, SQUARE, reliability, trimap_chart


def segmentation_page(summary: dict[str, Any], labels: LabelMap, picture: Callable[[int], Picture] | None,
                      run_folder: str | Path | None) -> str:
    """The page for the content of report.json.

    Args:
        summary: see `cfnseg.report.summary.summary_of`.
        labels: the classes, for their colours.
        picture: index -> RGB, truth and prediction of an image; None = no pictures.
        run_folder: see `cfnseg.report.page.render`.
    """
    classes = summary["classes"]
    optional = [("Boundary IoU", "boundary_iou", "boundary_miou"), ("Image AP", "image_ap", "image_map")]
    scores = [("IoU", "iou"), ("Recall", "recall"), ("Precision", "precision")]
    scores += [(name, key) for name, key, of_all in optional if summary[of_all] is not None]
    rows = [Row(row["name"], label.color, row["iou"] or 0, [score_cell(row[key]) for _, key in scores] + [
        (row[key], _pixels(row[key])) for key in ("truth_pixels", "predicted_pixels")], None if row["iou"] is None else row["iou_ci95"])
        for row, label in zip(classes, labels.labels)]
    rule = [RULE, unpredicted(summary)] if summary["unpredicted_pixels"] else [RULE]
    page = Page(
        "Segmentation", ("mIoU", f"over {summary['miou_divisor']} of {len(classes)} classes"), summary["miou"], summary["miou_ci95"],
        _cards(summary), " ".join(rule), "A heading sorts by its column; the line on a bar is the 95 % interval over images.",
        [*(name for name, _ in scores), "Truth", "Predicted"], rows, _pixels)
    return render("segmentation", page, summary, run_folder, gallery=gallery(summary["images"] if picture else [], picture, labels),
                  trimap=trimap_chart(summary["trimap"], summary["miou"]), reliability=reliability(summary["calibration"]),
                  square=SQUARE, shares=SHARES, fifths=FIFTHS, conventions=summary.get("conventions"), **_sizes(summary))


def _sizes(summary: dict[str, Any]) -> dict[str, Any]:
    """The rows of the tables by size: name, limits, mIoU and share of the truth of each size; name and cells of each class."""
    sizes, classes = summary["sizes"] or [], summary["classes"]
    total = max(1, sum(row["truth_pixels"] for row in sizes))
    return {"sizes": [(row["name"], size_limits(row), row["miou"], row["truth_pixels"] / total) for row in sizes],
            "class_sizes": [(row["name"], [score_cell(row["sizes"][size["name"]]) for size in sizes]) for row in classes] if sizes else []}


def _pixels(count: int) -> str:
    return f"{count:,} px"


def _cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, number and note of each summary card beside mIoU; scores that were not counted have none."""
    pixels = sum(row["truth_pixels"] for row in summary["classes"])
    scores = [("Pixel accuracy", "pixel_accuracy", "of all counted pixels"),
              ("Mean accuracy", "mean_accuracy", "mean recall of the classes"),
              ("Boundary mIoU", "boundary_miou", _boundary_note(summary["boundary_miou_ci95"])),
              ("Image-head mAP", "image_map", "classes in an image"),
              ("Loss", "loss", "mean cross-entropy")]
    cards = [(name, shown(summary[key]), note) for name, key, note in scores if summary[key] is not None]
    return [*cards, ("Images", f"{summary['num_images']:,}", f"{pixels:,} counted pixels")]


def _boundary_note(ends: list[float | None]) -> str:
    return f"{shown(ends[0])} to {shown(ends[1])}, edges 2\u00a0% of the diagonal wide"
