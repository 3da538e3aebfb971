"""`write_report`: report.json for programs, report.md for a pull request, report.html for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cfnseg.data.labels import LabelMap
from cfnseg.engine.evaluate import Evaluation
from cfnseg.errors import UserError
from cfnseg.report.gallery import Picture
from cfnseg.report.markdown import markdown_of
from cfnseg.report.page import page_of
from cfnseg.report.summary import summary_of
from cfnseg.storage import write_atomic


def write_report(folder: str | Path, result: Evaluation, labels: LabelMap, picture: Callable[[int], Picture], *,
                 facts: Mapping[str, object] | None = None, run_folder: str | Path | None = None) -> dict[str, Any]:
    """Write the three files of a report.

    Args:
        folder: where to; made if missing, files of an older report are replaced.
        result: what was counted.
        labels: the classes, in the order of ``result.confusion``.
        picture: index of an image in ``result.names`` -> its RGB (H, W, 3) uint8, truth and prediction (H, W) uint8 train
            ids; called for the few images that the page shows.
        facts: lines that say what was scored: data, split, weights, command.
        run_folder: a training run whose config.json and log.jsonl go into the page.

    Returns:
        What report.json holds; see `cfnseg.report.summary.summary_of`.

    Raises:
        UserError: the folder cannot be written; whatever ``picture`` raises. The numbers are written before the pictures
            are drawn, so that a failure there loses none.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the report's folder cannot be made ({error.strerror}); choose another with --out") from None
    summary = summary_of(result, labels, {key: str(value) for key, value in (facts or {}).items()})
    _write(folder / "report.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    _write(folder / "report.md", markdown_of(summary))
    _write(folder / "report.html", page_of(summary, labels, picture, Path(run_folder) if run_folder else None))
    return summary


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda beside: beside.write_text(text, encoding="utf-8"))
