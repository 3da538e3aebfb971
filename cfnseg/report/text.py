"""How results become text: percent, Markdown tables, JSON, and the files of a report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cfnseg.errors import UserError
from cfnseg.storage import write_atomic


def percent(value: float | None) -> str:
    """A score in 0..1 as a percentage without its sign, such as 76.6; "-" for None."""
    return "-" if value is None else f"{100 * value:.1f}"


def share(value: float) -> str:
    """A part in 0..1 with its sign, such as 41.3 %; a part that rounds to 0 says so."""
    return "< 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def number(value: float | None) -> str:
    """A loss with four decimals; "-" for None."""
    return "-" if value is None else f"{value:.4f}"


def score(value: float | None, name: str) -> str:
    """A value as text by its name: a loss is no percentage."""
    return number(value) if name.lower() == "loss" else percent(value)


def signed(value: float | None, name: str = "") -> str:
    """A difference of scores in points, such as +1.3; of losses as such.

    A small one has the decimals that it needs, at most three; 0 has no sign.
    """
    if value is None:
        return "-"
    value, digits = (value, 4) if name.lower() == "loss" else (100 * value, 1)
    while digits < 3 and 0 < abs(value) < 0.5 * 10**-digits:
        digits += 1
    return f"{value:+.{digits}f}" if abs(value) >= 0.5 * 10**-digits else f"{0:.1f}"


def ends(interval: Sequence[float | None], sign: bool = False) -> str:
    """A 95 % interval [low, high] of a score, or of a difference if ``sign``; "-" for None."""
    low, high = map(signed if sign else percent, interval)
    return "-" if interval[0] is None else f"{low} to {high}"


def plural(count: int, name: str) -> str:
    """A count with its noun: 1 image, 1,200 images."""
    return f"{count:,} {name}{'s'[: count != 1]}"


def bootstrap_ends(interval: Sequence[float | None], images: int) -> str:
    """A 95 % interval over images in words; "" without images."""
    over = f"bootstrap over {plural(images, 'image')}"
    return f"95 % interval {ends(interval)}, {over}" if images else ""


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a Markdown table; the first ``left`` columns are aligned to the left."""
    sides = [":--"] * left + ["--:"] * (len(titles) - left)
    lines = [f"| {' | '.join(map(cell, row))} |" for row in (titles, *rows)]
    return [lines[0], f"|{'|'.join(sides)}|", *lines[1:]]


def varying(titles: Sequence[str], rows: Sequence[Sequence[str]],
            keep: int = 1) -> tuple[list[int], str]:
    """Which columns to show, and a sentence on those that hold one value.

    Args:
        titles: of the columns.
        rows: the text of each cell.
        keep: so many columns stay, whatever they hold; the first names the rows.

    Returns:
        Indices of the columns whose cells differ, all columns of a single row; "" or a sentence
        such as "The same for all classes: images 10." (a column without any value is not mentioned).
    """
    columns = [{row[k] for row in rows} for k in range(len(titles))]
    same = [k for k, values in enumerate(columns)
            if k >= keep and len(rows) > 1 and len(values) == 1]
    known = [f"{titles[k]} {rows[0][k]}" for k in same if rows[0][k] != "-"]
    note = f"The same for all classes: {', '.join(known)}." if known else ""
    return [k for k in range(len(titles)) if k not in same], note


def fact_lines(facts: dict[str, str]) -> list[str]:
    """A Markdown list item per fact."""
    return [f"- {key}: `{' '.join(value.split())}`" for key, value in facts.items()]


def document(lines: list[str]) -> str:
    """Lines as the text of a file; two or more empty lines become one."""
    kept = [line for k, line in enumerate(lines) if line or (k and lines[k - 1])]
    return "\n".join(kept).rstrip() + "\n"


def write_files(folder: str | Path, stem: str, summary: dict[str, Any], markdown: str,
                page: Callable[[], str]) -> None:
    """Write ``<stem>.json`` for programs, ``.md`` for a pull request and ``.html`` for people.

    Args:
        folder: where to; made if missing, older files are replaced.
        stem: "report" or "compare".
        summary: strict JSON.
        markdown: the text of the .md file.
        page: makes the .html file. It runs last, so a picture that fails loses no number.

    Raises:
        UserError: the folder cannot be written; whatever ``page`` raises.
    """
    folder = report_folder(folder)
    write_json(folder / f"{stem}.json", summary)
    write_text(folder / f"{stem}.md", markdown)
    write_text(folder / f"{stem}.html", page())


def report_folder(folder: str | Path) -> Path:
    """The folder, made if missing; call it before hours of work, too.

    Raises:
        UserError: the folder cannot be made or written.
    """
    folder = Path(folder)
    problem = f"{folder}: the report's folder cannot be"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{problem} made ({error.strerror}); choose another with --out") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{problem} written; choose another with --out")
    return folder


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON atomically. Raises UserError if the folder cannot be written."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically. Raises UserError if the folder cannot be written."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
