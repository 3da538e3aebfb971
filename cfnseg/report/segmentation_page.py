"""report.html and report.md of a segmentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfnseg.data.labels import LabelMap
from cfnseg.report.charts import heatmap, reliability, trimap_chart
from cfnseg.report.gallery import Picture, gallery
from cfnseg.report.html import Page, Row, report_page, score_cell
from cfnseg.report.text import (
    bootstrap_ends,
    document,
    ends,
    fact_lines,
    percent,
    score,
    share,
    table,
    varying,
)

RULE = (
    "All scores are in percent. One int64 confusion matrix over the whole split, at the truth's "
    "native size, ignored pixels left out; IoU = TP / (TP + FP + FN). mIoU is the mean over the "
    "classes with a non-empty union. Images of one video are not independent; the interval is "
    "then too narrow.")


def weakest(summary: dict[str, Any]) -> str:
    """The sentence that opens a report: the class of the lowest IoU and its most frequent mistake.

    Where false pixels outweigh missed ones, it says whose pixels the class takes.
    """
    classes, matrix = summary["classes"], summary["confusion"]
    known = [c for c, row in enumerate(classes) if row["iou"] is not None]
    if not known:
        return "No pixel was counted."
    worst = min(known, key=lambda c: classes[c]["iou"])
    row, others = classes[worst], [c for c in range(len(classes)) if c != worst]
    truth, predicted = row["truth_pixels"], row["predicted_pixels"]
    start = f"Weakest: {row['name']}, IoU {percent(row['iou'])}"
    if not truth:
        return f"{start}; it is in no truth, but predicted for {predicted:,} px."
    missed = max(others, key=lambda c: matrix[worst][c], default=worst)
    taken = max(others, key=lambda c: matrix[c][worst], default=worst)
    if row["iou"] == 1:
        return f"{start}."
    if predicted > truth and others:
        part = share(matrix[taken][worst] / predicted)
        return f"{start}; {part} of the pixels taken for it are {classes[taken]['name']}."
    if others and matrix[worst][missed]:
        part = share(matrix[worst][missed] / truth)
        return f"{start}; {part} of its pixels are taken for {classes[missed]['name']}."
    return f"{start}; {share((truth - matrix[worst][worst]) / truth)} of its pixels get no class."


def segmentation_page(summary: dict[str, Any], labels: LabelMap,
                      picture: Callable[[int], Picture] | None,
                      run_folder: str | Path | None) -> str:
    """The page for the content of report.json.

    Args:
        summary: see `cfnseg.report.segmentation_report.summary_of`.
        labels: the classes, for their colours.
        picture: index -> RGB, truth and prediction of an image; None = no pictures.
        run_folder: see `cfnseg.report.html.report_page`.
    """
    classes = summary["classes"]
    scores = [("IoU", "iou"), ("Recall", "recall"), ("Precision", "precision"),
              ("Boundary IoU", "boundary_iou"), ("Image AP", "image_ap")]
    pixels = [("Truth", "truth_pixels"), ("Predicted", "predicted_pixels")]
    rows = [Row(row["name"], label.color, row["iou"] or 0,
                [score_cell(row[key]) for _, key in scores]
                + [(row[key], _pixels(row[key])) for _, key in pixels],
                None if row["iou"] is None else row["iou_ci95"])
            for row, label in zip(classes, labels.labels)]
    hint = "A heading sorts by its column. The line on a bar is the 95 % interval over images."
    page = Page(
        "Segmentation", weakest(summary),
        ("mIoU", f"over {summary['miou_divisor']} of {len(classes)} classes"), summary["miou"],
        summary["miou_ci95"], _cards(summary),
        " ".join([RULE, *_unpredicted(summary)]), hint,
        [name for name, _ in (*scores, *pixels)], rows, _pixels)
    return report_page(
        "segmentation", page, summary, run_folder,
        gallery=gallery(summary["images"] if picture else [], picture, labels),
        trimap=trimap_chart(summary["trimap"], summary["miou"]),
        reliability=reliability(summary["calibration"]), conventions=summary.get("conventions"),
        **_sizes(summary))


def markdown_of(summary: dict[str, Any]) -> str:
    """The text of report.md for the content of report.json."""
    classes, images = summary["classes"], summary["num_images"]
    within = bootstrap_ends(summary["miou_ci95"], images)
    head = (f"mIoU {percent(summary['miou'])}{f' ({within})' if within else ''} over "
            f"{summary['miou_divisor']} of {len(classes)} classes")
    names = [("pixel accuracy", "pixel_accuracy"), ("mean accuracy", "mean_accuracy"),
             ("boundary mIoU", "boundary_miou"), ("image-head mAP", "image_map"), ("loss", "loss")]
    scores = [f"{name} {score(summary[key], name)}"
              + (f" ({ends(summary['boundary_miou_ci95'])})" if key == "boundary_miou" else "")
              for name, key in names if summary[key] is not None]
    sizes = [row["name"] for row in summary["sizes"] or ()]
    titles = ["class", "id", "IoU", "95 %", "recall", "precision", "boundary IoU", *sizes,
              "image AP", "truth", "predicted"]
    rows = []
    for row in classes:
        numbers = [row["recall"], row["precision"], row["boundary_iou"],
                   *(row["sizes"] or {}).values(), row["image_ap"]]
        pixels = [_pixels(row[key]) for key in ("truth_pixels", "predicted_pixels")]
        rows.append([row["name"], str(row["id"]), percent(row["iou"]), ends(row["iou_ci95"]),
                     *map(percent, numbers), *pixels])
    columns, same = varying(titles, rows, keep=3)
    shown = [[row[k] for k in columns] for row in rows]
    return document([
        "# Segmentation report", "", weakest(summary), "", f"**{head}**", "", ", ".join(scores), "",
        *_unpredicted(summary), "", *table([titles[k] for k in columns], shown), "", same, "",
        *_mistakes(summary), "", *_details(summary), f"How it is counted: {RULE}", "",
        *fact_lines(summary["facts"])])


def _mistakes(summary: dict[str, Any]) -> list[str]:
    """The mistakes of the highest rates, as on the page."""
    names = [row["name"] for row in summary["classes"]]
    found = heatmap(summary["confusion"], names).mistakes
    rows = [[names[r], names[c], share(part), _pixels(count)] for r, c, part, count in found]
    titles = ["truth", "taken for", "share of the truth", "pixels"]
    return ["Mistakes by rate:", "", *table(titles, rows, left=2)] if rows else []


def _details(summary: dict[str, Any]) -> list[str]:
    """mIoU by distance and by size, calibration, and the mIoU of other libraries, if counted."""
    lines = []
    if summary["trimap"] is not None:
        bands = (f"{row['width']} px {percent(row['miou'])}" for row in summary["trimap"])
        lines += [f"mIoU within a distance of a true boundary: {', '.join(bands)}", ""]
    if summary["sizes"] is not None:
        sizes = (f"{row['name']} ({_size_limits(row)}) {percent(row['miou'])}"
                 for row in summary["sizes"])
        lines += [f"mIoU by size of segment: {', '.join(sizes)}", ""]
    if summary["calibration"] is not None:
        error = percent(summary["calibration"]["ece"])
        bins = len(summary["calibration"]["bins"])
        lines += [f"Expected calibration error {error}, over pixels in {bins} bins", ""]
    if "conventions" in summary:
        rows = [[row["library"], percent(row["miou"]), row["rule"], row["why"]]
                for row in summary["conventions"]]
        lines += ["What others would call mIoU, from the same counts:", "",
                  *table(["library", "mIoU", "rule", "why it differs"], rows), ""]
    return lines


def _size_limits(row: dict[str, Any]) -> str:
    """The pixels of a segment of one of report.json's sizes."""
    low, high = row["from_pixels"], row["to_pixels"]
    if high is None:
        return f"{low:,} px and more"
    return f"under {high:,} px" if low == 1 else f"{low:,} to {high - 1:,} px"


def _sizes(summary: dict[str, Any]) -> dict[str, Any]:
    """Rows of the two tables by size: of all classes, and of each class.

    sizes: name, limits, mIoU, share of the truth in 0..1. class_sizes: name, a cell per size.
    """
    sizes, classes = summary["sizes"] or [], summary["classes"]
    total = max(1, sum(row["truth_pixels"] for row in sizes))
    by_class = [(row["name"], [score_cell(row["sizes"][size["name"]]) for size in sizes])
                for row in classes] if sizes else []
    return {"sizes": [(row["name"], _size_limits(row), row["miou"], row["truth_pixels"] / total)
                      for row in sizes], "class_sizes": by_class}


def _pixels(count: int) -> str:
    return f"{count:,} px"


def _unpredicted(summary: dict[str, Any]) -> list[str]:
    count = summary["unpredicted_pixels"]
    return [f"{count:,} px are predicted as an ignored id; they count as wrong."] if count else []


def _cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, number and note of each card next to mIoU; uncounted scores have none."""
    pixels = sum(row["truth_pixels"] for row in summary["classes"])
    boundary = ends(summary["boundary_miou_ci95"])
    scores = [("Pixel accuracy", "pixel_accuracy", "of all counted pixels"),
              ("Mean accuracy", "mean_accuracy", "mean recall of the classes"),
              ("Boundary mIoU", "boundary_miou", f"{boundary}, edges 2\u00a0% of the diagonal wide"),
              ("Image-head mAP", "image_map", "classes in an image"),
              ("Loss", "loss", "mean cross-entropy")]
    cards = [(name, score(summary[key], name), note) for name, key, note in scores
             if summary[key] is not None]
    return [*cards, ("Images", f"{summary['num_images']:,}", f"{pixels:,} counted pixels")]
