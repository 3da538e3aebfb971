"""`write_report`: the report on a segmentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cfnseg.data.labels import LabelMap
from cfnseg.evaluation.segmentation import Evaluation
from cfnseg.report.files import write_files
from cfnseg.report.gallery import Picture
from cfnseg.report.markdown import markdown_of
from cfnseg.report.segmentation_page import segmentation_page
from cfnseg.report.summary import summary_of


def write_report(folder: str | Path, result: Evaluation, labels: LabelMap, picture: Callable[[int], Picture] | None, *,
                 facts: Mapping[str, object] | None = None, run_folder: str | Path | None = None,
                 explain: bool = False) -> dict[str, Any]:
    """Write report.json, report.md and report.html.

    Args:
        folder: where to; made if missing, files of an older report are replaced.
        result: what was counted.
        labels: the classes, in the order of ``result.confusion``.
        picture: index of an image in ``result.names`` -> its RGB (H, W, 3) uint8, truth and prediction (H, W) uint8 train
            ids; called for the few images that the page shows. None = a page without pictures, which has no copy of the data.
        facts: lines that say what was scored: data, split, weights, command.
        run_folder: a training run whose config.json and log.jsonl go into the page.
        explain: add what other libraries would call mIoU.

    Returns:
        What report.json holds; see `cfnseg.report.summary.summary_of`.

    Raises:
        UserError: the folder cannot be written; whatever ``picture`` raises. The numbers are written before the pictures
            are drawn, so that a failure there loses none.
    """
    summary = summary_of(result, labels, {key: str(value) for key, value in (facts or {}).items()}, explain)
    write_files(folder, summary, markdown_of(summary), lambda: segmentation_page(summary, labels, picture, run_folder))
    return summary
