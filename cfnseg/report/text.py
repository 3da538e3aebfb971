"""How results become text: percent, Markdown, JSON, and the files of a report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfnseg.errors import UserError
from cfnseg.storage import write_atomic

Cell = tuple[int, int, float, int]  # of a confusion matrix: row, column, share of the row, count


@dataclass(frozen=True)
class Column:
    """A column of the table of classes: a value to sort by and its text for each class.

    ``on_page``: in report.html, too. ``needed``: shown even if all classes have one text.
    """

    title: str
    values: list[float | None]
    texts: list[str]
    on_page: bool = True
    needed: bool = False


@dataclass(frozen=True)
class Report:
    """What report.md and report.html show.

    Attributes:
        kind: of report.
        lead: the sentence that opens it.
        metric, over, score, ends: the main score's name, its divisor in words, value and interval.
        images: how many were scored.
        cards: name, number and note of each further score.
        rule: how it is counted.
        hint: about the table of classes.
        names: of the classes.
        columns: of the table of classes; the page draws bars into the first.
        mistakes: cells of the confusion matrix, the highest rates first.
        amount: text for a count of the confusion matrix.
    """

    kind: str
    lead: str
    metric: str
    over: str
    score: float | None
    ends: list[float | None]
    images: int
    cards: list[tuple[str, str, str]]
    rule: str
    hint: str
    names: list[str]
    columns: list[Column]
    mistakes: list[Cell]
    amount: Callable[[int], str]

    @property
    def interval(self) -> str:
        """The 95 % interval in words; "" without images."""
        over = f"bootstrap over {plural(self.images, 'image')}"
        return f"95 % interval {ends(self.ends)}, {over}" if self.images else ""

    def markdown(self, details: list[str], facts: dict[str, str]) -> str:
        """The text of report.md. ``details``: more lines, ``facts``: what was scored."""
        head = [
            self.metric,
            percent(self.score),
            f"({self.interval})" * bool(self.images),
            self.over,
        ]
        columns, same = varying(self.columns)
        rows = list(zip(self.names, *(column.texts for column in columns)))
        wrong = [
            [self.names[r], self.names[c], share(part), self.amount(count)]
            for r, c, part, count in self.mistakes
        ]
        titles = ["truth", "taken for", "share of the truth", "count"]
        return document(
            [
                f"# {self.kind} report",
                "",
                self.lead,
                "",
                f"**{' '.join(filter(None, head))}**",
                "",
                *(f"- {name} {value} ({note})" for name, value, note in self.cards),
                "",
                *table(["Class", *(column.title for column in columns)], rows),
                "",
                same,
                "",
                *(["Mistakes by rate:", "", *table(titles, wrong, left=2), ""] if wrong else []),
                *details,
                "",
                f"How it is counted: {self.rule}",
                "",
                *(f"- {key}: `{' '.join(value.split())}`" for key, value in facts.items()),
            ]
        )


def score_column(title: str, values: list[float | None], **more: bool) -> Column:
    """A column of scores in 0..1, shown in percent."""
    return Column(title, values, [percent(value) for value in values], **more)


def percent(value: float | None) -> str:
    """A score in 0..1 as a percentage without its sign, such as 76.6; "-" for None."""
    return "-" if value is None else f"{100 * value:.1f}"


def share(value: float) -> str:
    """A part in 0..1 with its sign, such as 41.3 %; a part that rounds to 0 says so."""
    return "< 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def score(value: float | None, name: str) -> str:
    """A value as text by its name: a loss has four decimals, a score is in percent."""
    if value is not None and name.lower() == "loss":
        return f"{value:.4f}"
    return percent(value)


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


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a Markdown table; the first ``left`` columns are aligned to the left."""
    sides = [":--"] * left + ["--:"] * (len(titles) - left)
    cells = [
        [" ".join(text.split()).replace("|", "\\|") for text in row] for row in (titles, *rows)
    ]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], f"|{'|'.join(sides)}|", *lines[1:]]


def varying(columns: Sequence[Column]) -> tuple[list[Column], str]:
    """The columns to show, and a sentence on columns that hold one text for all classes.

    The sentence is "", or such as "The same for all classes: images 10." A column without any
    value is not mentioned.
    """
    same = [c for c in columns if not c.needed and len(c.texts) > 1 and len({*c.texts}) == 1]
    known = [f"{column.title} {column.texts[0]}" for column in same if column.texts[0] != "-"]
    note = f"The same for all classes: {', '.join(known)}." if known else ""
    return [column for column in columns if column not in same], note


def document(lines: list[str]) -> str:
    """Lines as the text of a file; two or more empty lines become one."""
    kept = [line for k, line in enumerate(lines) if line or (k and lines[k - 1])]
    return "\n".join(kept).rstrip() + "\n"


def write_files(
    folder: str | Path, stem: str, summary: dict[str, Any], markdown: str, page: Callable[[], str]
) -> None:
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
