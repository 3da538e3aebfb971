"""The three files of any report: report.json for programs, report.md for a pull request, report.html for people."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfnseg.errors import UserError
from cfnseg.storage import write_atomic


def write_files(folder: str | Path, summary: dict[str, Any], markdown: str, page: Callable[[], str]) -> None:
    """Write a report.

    Args:
        folder: where to; made if missing, files of an older report are replaced.
        summary: what report.json holds.
        markdown: the text of report.md.
        page: makes report.html; called last, so that a picture that cannot be drawn loses no number.

    Raises:
        UserError: the folder cannot be written; whatever ``page`` raises.
    """
    folder = report_folder(folder)
    _write(folder / "report.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    _write(folder / "report.md", markdown)
    _write(folder / "report.html", page())


def report_folder(folder: str | Path) -> Path:
    """The folder, made if missing. UserError if it cannot be made or written: call it before hours of work, too."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the report's folder cannot be made ({error.strerror}); choose another with --out") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: the report's folder cannot be written; choose another with --out")
    return folder


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda beside: beside.write_text(text, encoding="utf-8"))
