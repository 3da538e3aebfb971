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


def unpredicted(summary: dict[str, Any]) -> str:
    """About pixels to which a mask gives no class."""
    return f"{summary['unpredicted_pixels']:,} px that count are predicted as an ignored id; they are wrong."


def markdown_of(summary: dict[str, Any]) -> str:
    """The text of report.md for the content of report.json; see `cfnseg.report.summary.summary_of`."""
    boundary = summary["boundary_miou"]
    scores = [f"{name} {shown(summary[key])}" for name, key in (("pixel accuracy", "pixel_accuracy"), ("mean accuracy", "mean_accuracy"))]
    if boundary is not None:
        scores.append(f"boundary mIoU {shown(boundary)} ({' to '.join(shown(x) for x in summary['boundary_miou_ci95'])})")
    scores += [f"{name} {shown(summary[key])}" for name, key in (("image-head mAP", "image_map"), ("loss", "loss"))
               if summary[key] is not None]
    lines = ["# Segmentation report", "", f"**{headline(summary)}**", "", ", ".join(scores), ""]
    if summary["unpredicted_pixels"]:
        lines += [unpredicted(summary), ""]
    sizes = [row["name"] for row in summary["sizes"] or ()]
    titles = ["class", "id", "IoU", "95 %", "recall", "precision", "boundary IoU", *sizes, "image AP", "truth", "predicted"]
    lines += [_row(titles), f"|:--|{'--:|' * (len(titles) - 1)}"]
    for row in summary["classes"]:
        within = "-" if row["iou"] is None else " to ".join(shown(x) for x in row["iou_ci95"])
        numbers = [row["recall"], row["precision"], row["boundary_iou"], *(row["sizes"] or {}).values(), row["image_ap"]]
        pixels = [f"{row[key]:,} px" for key in ("truth_pixels", "predicted_pixels")]
        lines.append(_row([cell(row["name"]), str(row["id"]), shown(row["iou"]), within, *map(shown, numbers), *pixels]))
    return "\n".join([*lines, "", *_details(summary), f"How mIoU is counted: {RULE}", "", *fact_lines(summary["facts"])]).rstrip() + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _details(summary: dict[str, Any]) -> list[str]:
    """mIoU by distance and by size, calibration, and others' mIoU: what there is of them."""
    lines = []
    if summary["trimap"] is not None:
        bands = ", ".join(f"{row['width']} px {shown(row['miou'])}" for row in summary["trimap"])
        lines.append(f"mIoU within so many pixels of a true boundary: {bands}")
    if summary["sizes"] is not None:
        sizes = ", ".join(f"{row['name']} ({size_limits(row)}) {shown(row['miou'])}" for row in summary["sizes"])
        lines.append(f"mIoU by size of segment: {sizes}")
    if summary["calibration"] is not None:
        bins = len(summary["calibration"]["bins"])
        lines.append(f"Expected calibration error {shown(summary['calibration']['ece'])}, over pixels in {bins} bins")
    lines = [line for text in lines for line in (text, "")]
    if "conventions" in summary:
        lines += ["What others would call mIoU, from the same counts:", "", _row(["library", "mIoU", "rule", "why it differs"]),
                  "|:--|--:|:--|:--|"]
        lines += [*(_row([row["library"], shown(row["miou"]), row["rule"], row["why"]]) for row in summary["conventions"]), ""]
    return lines


def size_limits(row: dict[str, Any]) -> str:
    """The pixels that a segment of one of report.json's sizes has."""
    low, high = row["from_pixels"], row["to_pixels"]
    return f"{low:,} px and more" if high is None else f"under {high:,} px" if low == 1 else f"{low:,} to {high - 1:,} px"
