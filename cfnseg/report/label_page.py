"""report.html for images with one label each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.report.label_markdown import RULE
from cfnseg.report.markdown import shown
from cfnseg.report.page import MANY, Page, Row, render, score_cell
from cfnseg.report.thumbnails import thumbnails


def label_page(summary: dict[str, Any], image: Callable[[int], np.ndarray], run_folder: str | Path | None) -> str:
    """The page for the content of report.json.

    Args:
        summary: see `cfnseg.report.labels.label_summary`.
        image: index -> RGB (H, W, 3) uint8.
        run_folder: see `cfnseg.report.page.render`.
    """
    classes, count = summary["classes"], summary["num_images"]
    worst = max((row["error"] or 0 for row in classes), default=0)
    hint = "A heading sorts by its column." + (f" The longest bar is the highest error, {shown(worst)}." if worst else "")
    columns = [("Error", "error"), ("Precision", "precision"), ("Average precision", "average_precision")]
    rows = [Row(row["name"], None, (row["error"] or 0) / (worst or 1),
                [score_cell(row[key]) for _, key in columns] + [(row["images"], f"{row['images']:,}")]) for row in classes]
    page = Page("Classification", ("Top-1 error", f"of {_images(count)} in {len(classes)} classes"), summary["top1_error"],
                summary["top1_error_ci95"], _cards(summary), RULE, hint, [*(name for name, _ in columns), "Images"], rows, _images,
                mistakes=18 if len(classes) > MANY else 8)
    return render("labels", page, summary, run_folder, thumbnails=thumbnails(summary["images"], image))


def _images(count: int) -> str:
    return f"{count:,} image{'s'[:count != 1]}"


def _cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, number and note of each summary card beside the top-1 error; scores that were not counted or cannot fail have none."""
    top5 = [("Top-5 error", "top5_error", "not among the first five")] if len(summary["classes"]) > 5 else []
    scores = [*top5, ("Mean class error", "mean_class_error", "each class weighs the same"), ("Loss", "loss", "mean cross-entropy")]
    cards = [(name, shown(summary[key]), note) for name, key, note in scores if summary[key] is not None]
    filled = sum(row["images"] > 0 for row in summary["classes"])
    return [*cards, ("Images", f"{summary['num_images']:,}", f"of {filled} classes")]
