"""The pages: one file with everything in it, for any screen, without the network."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cfnseg.report import charts, text
from cfnseg.training.log import environment, read_log

MANY = 40  # with more classes than this, table and matrix scroll in boxes of their own
Cell = tuple[float, str]  # the value that a column sorts by, and its text


@dataclass(frozen=True)
class Row:
    """A class in the table.

    Attributes:
        name, color: of the class; no colour = no swatch.
        bar: length of the bar in its first cell, in 0..1.
        cells: one per column.
        ends: interval on the bar in 0..1, or None.
    """

    name: str
    color: tuple[int, int, int] | None
    bar: float
    cells: list[Cell]
    ends: list[float] | None = None


@dataclass(frozen=True)
class Page:
    """What differs between the reports.

    Attributes:
        kind: of report.
        lead: the sentence that opens the page.
        headline: name and note of the first card.
        score, ends: its score and 95 % interval.
        cards: name, number and note of the others.
        rule: how it is counted.
        hint: about the table of classes.
        columns, rows: of the table of classes. Columns of one value are left out.
        amount: text for a count of the confusion matrix.
        mistakes: the number of mistakes to name.
    """

    kind: str
    lead: str
    headline: tuple[str, str]
    score: float | None
    ends: list[float | None]
    cards: list[tuple[str, str, str]]
    rule: str
    hint: str
    columns: list[str]
    rows: list[Row]
    amount: Callable[[int], str]
    mistakes: int = 6


def render(template: str, **values: object) -> str:
    """The page of ``<template>.html.jinja``, which extends base.html.jinja.

    Templates have the filters percent, share, score, signed and ends of `cfnseg.report.text`, compact
    of `cfnseg.report.charts`, count (1,234), css (#rrggbb) and place (0..1 as a CSS length).
    ``ui`` has the macros of macros.html.jinja. A missing value raises.
    """
    return _templates().get_template(f"{template}.html.jinja").render(**values)


@functools.cache
def _templates() -> Environment:
    made = Environment(loader=PackageLoader("cfnseg.report", "templates"), autoescape=True,
                       undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {
        "percent": text.percent, "share": text.share, "score": text.score, "signed": text.signed,
        "ends": text.ends, "compact": charts.compact, "count": "{:,}".format,
        "css": lambda color: "#{:02x}{:02x}{:02x}".format(*color),
        "place": lambda part: f"{100 * part:.2f}%"}
    made.globals |= {"chart": charts, "MANY": MANY}
    made.globals["ui"] = made.get_template("macros.html.jinja").module
    return made


def score_cell(value: float | None) -> Cell:
    """A score for the table; None sorts below all."""
    return -1 if value is None else value, text.percent(value)


def report_page(template: str, page: Page, summary: dict[str, Any], run_folder: str | Path | None,
                **more: object) -> str:
    """The page for the content of report.json.

    Args:
        template: "segmentation" or "classification".
        page: what differs between the reports.
        summary: its classes (with names), confusion, num_images and facts are used.
        run_folder: holds config.json and log.jsonl; without them, the page has no settings and
            no learning curves.
        more: what only this template needs.
    """
    run = Path(run_folder) if run_folder else None
    config = _read_config(run)
    home = config.pop("environment") if "environment" in config else environment()
    facts, names = summary["facts"], [row["name"] for row in summary["classes"]]
    texts = [[row.name, *(cell for _, cell in row.cells)] for row in page.rows]
    columns, same = text.varying(["Class", *page.columns], texts, keep=2)
    shown = (config.get("name"), facts.get("data"), facts.get("split"))
    return render(
        template, page=page, names=names, columns=[k - 1 for k in columns[1:]],
        hint=" ".join(filter(None, [page.hint, same])), many=len(names) > MANY,
        interval=text.bootstrap_ends(page.ends, summary["num_images"]),
        axis=charts.interval_axis(page.score, page.ends),
        title=" · ".join(name for name in shown if name),
        curves=charts.charts(read_log(run / "log.jsonl")) if run else [],
        heatmap=charts.heatmap(summary["confusion"], names, page.mistakes), facts=facts,
        settings=_sections(config), environment=_texts(home), **more)


def _read_config(run: Path | None) -> dict[str, Any]:
    path = run / "config.json" if run else None
    return json.loads(path.read_text()) if path and path.exists() else {}


def _sections(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Settings as text, by section; settings without a section come first, as "run"."""
    sections = {name: values for name, values in config.items() if isinstance(values, dict)}
    rest = {key: value for key, value in config.items() if key not in sections}
    return {name: _texts(values) for name, values in {"run": rest, **sections}.items() if values}


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value)
            for key, value in values.items()}
