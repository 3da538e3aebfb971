"""report.html and report.md of a classification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.report.charts import heatmap
from cfnseg.report.gallery import tiles
from cfnseg.report.html import MANY, Page, Row, report_page, score_cell
from cfnseg.report.text import (
    bootstrap_ends,
    document,
    fact_lines,
    percent,
    plural,
    score,
    share,
    table,
    varying,
)

RULE = (
    "All scores are in percent. An image is right if its class has the highest probability, and "
    "right in the top 5 if its class is among the first five; equal probabilities count against "
    "it. The mean class error is over the classes that have images. Average precision ranks all "
    "images by the probability of the class (VOC 2010). The interval is about other images of "
    "this kind, not about other training runs.")
COLUMNS = [("Error", "error"), ("Precision", "precision"),
           ("Average precision", "average_precision")]


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


def classification_page(summary: dict[str, Any], image: Callable[[int], np.ndarray],
                        run_folder: str | Path | None) -> str:
    """The page for the content of report.json.

    Args:
        summary: see `cfnseg.report.classification_report.summary_of`.
        image: index -> RGB (H, W, 3) uint8.
        run_folder: see `cfnseg.report.html.report_page`.
    """
    classes, count = summary["classes"], summary["num_images"]
    worst = max((row["error"] or 0 for row in classes), default=0)
    hint = "A heading sorts by its column."
    if worst:
        hint += f" The longest bar is the highest error, {percent(worst)}."
    rows = [Row(row["name"], None, (row["error"] or 0) / (worst or 1),
                [score_cell(row[key]) for _, key in COLUMNS]
                + [(row["images"], f"{row['images']:,}")]) for row in classes]
    page = Page(
        "Classification", weakest(summary),
        ("Top-1 error", f"of {_images(count)} in {len(classes)} classes"), summary["top1_error"],
        summary["top1_error_ci95"], _cards(summary), RULE, hint,
        [*(name for name, _ in COLUMNS), "Images"], rows, _images,
        mistakes=18 if len(classes) > MANY else 8)
    return report_page("classification", page, summary, run_folder,
                       tiles=tiles(summary["images"], image))


def markdown_of(summary: dict[str, Any]) -> str:
    """The text of report.md for the content of report.json."""
    classes, names = summary["classes"], [row["name"] for row in summary["classes"]]
    within = bootstrap_ends(summary["top1_error_ci95"], summary["num_images"])
    head = f"top-1 error {percent(summary['top1_error'])}{f' ({within})' if within else ''}"
    scores = [f"{name} {score(summary[key], name)}" for name, key in (
        ("top-5 error", "top5_error"), ("mean class error", "mean_class_error"), ("loss", "loss"))]
    titles = ["class", "images", *(name.lower() for name, _ in COLUMNS)]
    rows = [[row["name"], f"{row['images']:,}", *(percent(row[key]) for _, key in COLUMNS)]
            for row in classes]
    columns, same = varying(titles, rows)
    shown = [[row[k] for k in columns] for row in rows]
    mistakes = [[names[r], names[c], share(part), f"{count:,}"] for r, c, part, count
                in heatmap(summary["confusion"], names).mistakes]
    wrong = table(["truth", "taken for", "share of the truth", "images"], mistakes, left=2)
    return document([
        "# Classification report", "", weakest(summary), "", f"**{head}**", "", ", ".join(scores),
        "", *table([titles[k] for k in columns], shown), "", same, "",
        *(["Mistakes by rate:", "", *wrong, ""] if mistakes else []),
        f"How it is counted: {RULE}", "", *fact_lines(summary["facts"])])


def _images(count: int) -> str:
    return plural(count, "image")


def _cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, number and note of each card next to the top-1 error.

    Scores that were not counted have none, nor does a top-5 error that cannot fail.
    """
    top5 = [("Top-5 error", "top5_error", "not among the first five")]
    scores = [*(top5 if len(summary["classes"]) > 5 else []),
              ("Mean class error", "mean_class_error", "each class weighs the same"),
              ("Loss", "loss", "mean cross-entropy")]
    cards = [(name, score(summary[key], name), note) for name, key, note in scores
             if summary[key] is not None]
    filled = sum(row["images"] > 0 for row in summary["classes"])
    return [*cards, ("Images", f"{summary['num_images']:,}", f"of {filled} classes")]
