"""report.md: the numbers of a segmentation as a page of text, and what any report's text needs."""

from __future__ import annotations

from typing import Any

RULE = ("One int64 confusion matrix over the whole split, at the ground truth's native size, ignored pixels left out; "
        "IoU = TP / (TP + FP + FN); mIoU is the mean over the classes with a non-empty union. "
        "Images of one video are not independent; the interval is then too narrow.")


def shown(value: float | None, digits: int = 4) -> str:
    """A score as text; "-" where nothing was counted."""
    return "-" if value is None else f"{value:.{digits}f}"


def interval(ends: list[float | None], images: int) -> str:
    """A 95 % interval [low, high] over images in words."""
    return f"95 % interval {shown(ends[0])} to {shown(ends[1])}, bootstrap over {images} image{'s'[:images != 1]}"


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def fact_lines(facts: dict[str, str]) -> list[str]:
    """A list item per fact."""
    return [f"- {key}: `{' '.join(value.split())}`" for key, value in facts.items()]


def headline(summary: dict[str, Any]) -> str:
    """mIoU with its interval and its divisor, in one line."""
    images = summary["num_images"]
    within = f" ({interval(summary['miou_ci95'], images)})" if images else ""
    return f"mIoU {shown(summary['miou'])}{within} over {summary['miou_divisor']} of {len(summary['classes'])} classes"


def markdown_of(summary: dict[str, Any]) -> str:
    """The text of report.md for the content of report.json; see `cfnseg.report.summary.summary_of`."""
    optional = [("boundary mIoU", summary["boundary_miou"]), ("image-head mAP", summary["image_map"]), ("loss", summary["loss"])]
    scores = [("pixel accuracy", summary["pixel_accuracy"]), ("mean accuracy", summary["mean_accuracy"])]
    scores += [(name, value) for name, value in optional if value is not None]
    lines = ["# Segmentation report", "", f"**{headline(summary)}**", "",
             ", ".join(f"{name} {shown(value)}" for name, value in scores), "",
             "| class | id | IoU | recall | precision | boundary IoU | image AP | truth | predicted |",
             "|:--|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for row in summary["classes"]:
        numbers = [shown(row[key]) for key in ("iou", "recall", "precision", "boundary_iou", "image_ap")]
        pixels = [f"{row[key]:,} px" for key in ("truth_pixels", "predicted_pixels")]
        lines.append(f"| {' | '.join([cell(row['name']), str(row['id']), *numbers, *pixels])} |")
    return "\n".join([*lines, "", f"How mIoU is counted: {RULE}", "", *fact_lines(summary["facts"])]).rstrip() + "\n"
