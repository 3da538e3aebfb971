"""The pages: one file with everything in it, for any screen, without the network."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cfnseg.report import charts, text
from cfnseg.report.text import Report
from cfnseg.training.log import environment, read_log

MANY = 40  # longer tables, and matrices of more classes, scroll in boxes of their own


def render(template: str, **values: object) -> str:
    """The page of ``<template>.html.jinja``, which extends base.html.jinja.

    Templates have the filters percent, share, score, signed and ends of `cfnseg.report.text`,
    compact of `cfnseg.report.charts`, count (1,234), css (#rrggbb), place (0..1 as a CSS length)
    and initial (a capital, except for mIoU).
    ``ui`` has the macros of macros.html.jinja. A missing value raises.
    """
    return _templates().get_template(f"{template}.html.jinja").render(**values)


@functools.cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("cfnseg.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "percent": text.percent,
        "share": text.share,
        "score": text.score,
        "signed": text.signed,
        "ends": text.ends,
        "compact": charts.compact,
        "count": "{:,}".format,
        "css": lambda color: "#{:02x}{:02x}{:02x}".format(*color),
        "initial": lambda name: name if name == "mIoU" else name[0].upper() + name[1:],
        "place": lambda part: f"{100 * part:.2f}%",
    }
    made.globals |= {"chart": charts, "MANY": MANY}
    made.globals["ui"] = made.get_template("macros.html.jinja").module
    return made


def report_page(
    template: str,
    page: Report,
    facts: dict[str, str],
    run_folder: str | Path | None,
    **more: object,
) -> str:
    """report.html.

    Args:
        template: "segmentation" or "classification".
        page: what the report shows.
        facts: what was scored.
        run_folder: holds config.json and log.jsonl; without them, the page has no settings and
            no learning curves.
        more: what only this template needs.
    """
    run = Path(run_folder) if run_folder else None
    config = _read_config(run)
    home = config.pop("environment") if "environment" in config else environment()
    columns, same = text.varying([column for column in page.columns if column.on_page])
    shown = (config.get("name"), facts.get("data"), facts.get("split"))
    return render(
        template,
        page=page,
        columns=columns,
        hint=" ".join(filter(None, [page.hint, same])),
        axis=charts.interval_axis(page.score, page.ends),
        title=" · ".join(name for name in shown if name),
        curves=charts.charts(read_log(run / "log.jsonl")) if run else [],
        facts=facts,
        settings=_sections(config),
        environment=_texts(home),
        **more,
    )


def _read_config(run: Path | None) -> dict[str, Any]:
    path = run / "config.json" if run else None
    return json.loads(path.read_text()) if path and path.exists() else {}


def _sections(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Settings as text, by section; settings without a section come first, as "run"."""
    sections = {name: values for name, values in config.items() if isinstance(values, dict)}
    rest = {key: value for key, value in config.items() if key not in sections}
    return {name: _texts(values) for name, values in {"run": rest, **sections}.items() if values}


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()
    }
