"""report.html of a segmentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfnseg.data.labels import LabelMap
from cfnseg.report.gallery import Picture, gallery
from cfnseg.report.markdown import RULE, shown
from cfnseg.report.page import Page, Row, render, score_cell


def segmentation_page(summary: dict[str, Any], labels: LabelMap, picture: Callable[[int], Picture],
                      run_folder: str | Path | None) -> str:
    """The page for the content of report.json.

    Args:
        summary: see `cfnseg.report.summary.summary_of`.
        labels: the classes, for their colours.
        picture: index -> RGB, truth and prediction of an image.
        run_folder: see `cfnseg.report.page.render`.
    """
    classes = summary["classes"]
    optional = [("Boundary IoU", "boundary_iou", "boundary_miou"), ("Image AP", "image_ap", "image_map")]
    scores = [("IoU", "iou"), ("Recall", "recall"), ("Precision", "precision")]
    scores += [(name, key) for name, key, of_all in optional if summary[of_all] is not None]
    rows = [Row(row["name"], label.color, row["iou"] or 0, [score_cell(row[key]) for _, key in scores] + [
        (row[key], _pixels(row[key])) for key in ("truth_pixels", "predicted_pixels")]) for row, label in zip(classes, labels.labels)]
    page = Page(
        "Segmentation", ("mIoU", f"over {summary['miou_divisor']} of {len(classes)} classes"), summary["miou"], summary["miou_ci95"],
        _cards(summary), RULE, "A heading sorts by its column.", [*(name for name, _ in scores), "Truth", "Predicted"], rows, _pixels)
    return render("segmentation", page, summary, run_folder, gallery=gallery(summary["images"], picture, labels))


def _pixels(count: int) -> str:
    return f"{count:,} px"


def _cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, number and note of each summary card beside mIoU; scores that were not counted have none."""
    pixels = sum(row["truth_pixels"] for row in summary["classes"])
    scores = [("Pixel accuracy", "pixel_accuracy", "of all counted pixels"),
              ("Mean accuracy", "mean_accuracy", "mean recall of the classes"),
              ("Boundary mIoU", "boundary_miou", "within 2 % of the diagonal"),
              ("Image-head mAP", "image_map", "classes in an image"),
              ("Loss", "loss", "mean cross-entropy")]
    cards = [(name, shown(summary[key]), note) for name, key, note in scores if summary[key] is not None]
    return [*cards, ("Images", f"{summary['num_images']:,}", f"{pixels:,} counted pixels")]
