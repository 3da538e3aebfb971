"""report.html: one file with everything in it, for any screen, without the network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cfnseg.report import curves
from cfnseg.report.heatmap import compact, heatmap
from cfnseg.report.markdown import interval, shown
from cfnseg.training.log import environment, read_log

MANY = 40  # with more classes than this, table and matrix scroll in boxes of their own


@dataclass(frozen=True)
class Row:
    """A class in the table: its name, its colour (or None), a bar's length in 0..1, and (value to sort by, text) cells.

    The first cell has the bar, and on it the interval's ``ends`` in 0..1, if there is one.
    """

    name: str
    color: tuple[int, int, int] | None
    bar: float
    cells: list[tuple[float, str]]
    ends: list[float] | None = None


@dataclass(frozen=True)
class Page:
    """What differs between the reports.

    Attributes:
        kind: of report.
        headline: name and note of the first card.
        score, ends: its score and 95 % interval.
        cards: name, number and note of the others.
        rule: how it is counted.
        hint: about the table.
        columns, rows: of the table of classes.
        amount: text for a count of the confusion matrix.
        mistakes: of these, how many to name.
    """

    kind: str
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


def score_cell(value: float | None) -> tuple[float, str]:
    """A score for the table; one that was not counted sorts below all."""
    return -1 if value is None else value, shown(value)


def render(template: str, page: Page, summary: dict[str, Any], run_folder: str | Path | None, **more: object) -> str:
    """The page for the content of report.json.

    Args:
        template: "segmentation" or "labels".
        page: what differs between the reports.
        summary: classes (with names), confusion, num_images and facts are used.
        run_folder: where config.json and log.jsonl are; None or a folder without them leaves settings and curves out.
        more: what only this template needs.
    """
    run = Path(run_folder) if run_folder else None
    config = _read_config(run)
    home = environment() if "environment" not in config else config.pop("environment")
    facts, names = summary["facts"], [row["name"] for row in summary["classes"]]
    loader = Environment(loader=PackageLoader("cfnseg.report", "templates"), autoescape=True, undefined=StrictUndefined,
                         trim_blocks=True, lstrip_blocks=True)
    loader.filters |= {"shown": shown, "compact": compact, "css": lambda color: "#{:02x}{:02x}{:02x}".format(*color)}
    return loader.get_template(f"{template}.html.jinja").render(
        page=page, names=names, many=len(names) > MANY, interval=interval(page.ends, summary["num_images"]),
        title=" · ".join([name for name in (config.get("name"), facts.get("data"), facts.get("split")) if name]),
        frame=curves, charts=curves.charts(read_log(run / "log.jsonl")) if run else [],
        heatmap=heatmap(summary["confusion"], names, page.mistakes), facts=facts, settings=_sections(config),
        environment={key: _text(value) for key, value in home.items()}, **more)


def _read_config(run: Path | None) -> dict[str, Any]:
    path = run / "config.json" if run else None
    return json.loads(path.read_text()) if path and path.exists() else {}


def _sections(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Settings as text, by section; those of no section come first, as "run"."""
    sections = {"run": {key: value for key, value in config.items() if not isinstance(value, dict)}}
    sections |= {name: values for name, values in config.items() if isinstance(values, dict)}
    return {name: {key: _text(value) for key, value in values.items()} for name, values in sections.items() if values}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
