"""report.html and report.md of a classification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.report.charts import heatmap
from cfnseg.report.gallery import tiles
from cfnseg.report.html import MANY, report_page
from cfnseg.report.text import Column, Report, percent, plural, score, score_column, share

RULE = (
    "All scores are in percent. An image is right if its class has the highest probability, and "
    "right in the top 5 if its class is among the first five; equal probabilities count against "
    "it. The mean class error is over the classes that have images. Average precision ranks all "
    "images by the probability of the class (VOC 2010). The interval is about other images of "
    "this kind, not about other training runs."
)


def weakest(summary: dict[str, Any]) -> str:
    """The sentence that opens a report: the class of the highest error and its main mistake."""
    classes = summary["classes"]
    known = [c for c, row in enumerate(classes) if row["error"] is not None]
    if not known:
        return "No image was counted."
    worst = max(known, key=lambda c: classes[c]["error"])
    row, counts = classes[worst], summary["confusion"][worst]
    start = f"Weakest: {row['name']}, error {percent(row['error'])}"
    if not row["error"]:
        return f"{start}."
    taken = max((c for c in range(len(classes)) if c != worst), key=lambda c: counts[c])
    part = share(counts[taken] / row["images"])
    return f"{start}; {part} of its images are taken for {classes[taken]['name']}."


def describe(summary: dict[str, Any]) -> Report:
    """What both files show; see `cfnseg.report.classification_report.summary_of`."""
    classes, names = summary["classes"], [row["name"] for row in summary["classes"]]
    scores = {
        title: [row[key] for row in classes]
        for title, key in (
            ("Error", "error"),
            ("Precision", "precision"),
            ("Average precision", "average_precision"),
        )
    }
    images = [row["images"] for row in classes]
    columns = [
        score_column(title, values, needed=title == "Error") for title, values in scores.items()
    ]
    worst = max((value or 0 for value in scores["Error"]), default=0)
    longest = f" The longest bar is the highest error, {percent(worst)}." if worst else ""
    return Report(
        "Classification",
        weakest(summary),
        "top-1 error",
        "",
        summary["top1_error"],
        summary["top1_error_ci95"],
        summary["num_images"],
        _cards(summary),
        RULE,
        "A heading sorts by its column." + longest,
        names,
        [*columns, Column("Images", images, [f"{count:,}" for count in images])],
        heatmap(summary["confusion"], names).mistakes,
        _images,
    )


def classification_page(
    summary: dict[str, Any], image: Callable[[int], np.ndarray], run_folder: str | Path | None
) -> str:
    """report.html.

    Args:
        summary: see `cfnseg.report.classification_report.summary_of`.
        image: index -> RGB (H, W, 3) uint8.
        run_folder: see `cfnseg.report.html.report_page`.
    """
    page, errors = describe(summary), [row["error"] or 0 for row in summary["classes"]]
    mistakes = 18 if len(errors) > MANY else 8
    return report_page(
        "classification",
        page,
        summary["facts"],
        run_folder,
        bars=[error / (max(errors) or 1) for error in errors],
        whiskers=[None] * len(errors),
        colors=[],
        heatmap=heatmap(summary["confusion"], page.names, mistakes),
        tiles=tiles(summary["images"], image),
    )


def markdown_of(summary: dict[str, Any]) -> str:
    """The text of report.md for the content of report.json."""
    return describe(summary).markdown([], summary["facts"])


def _images(count: int) -> str:
    return plural(count, "image")


def _cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, number and note of each score next to the top-1 error.

    Scores that were not counted have none, nor does a top-5 error that cannot fail.
    """
    top5 = [("top-5 error", "top5_error", "not among the first five")]
    scores = [
        *(top5 if len(summary["classes"]) > 5 else []),
        ("mean class error", "mean_class_error", "each class weighs the same"),
        ("loss", "loss", "mean cross-entropy"),
    ]
    cards = [
        (name, score(summary[key], name), note)
        for name, key, note in scores
        if summary[key] is not None
    ]
    filled = sum(row["images"] > 0 for row in summary["classes"])
    classes = f"in {filled} of {len(summary['classes'])} classes"
    return [*cards, ("images", f"{summary['num_images']:,}", classes)]
