"""report.html: one file with everything in it, for any screen, without the network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cfnseg.data.labels import LabelMap
from cfnseg.engine.log import environment, read_log
from cfnseg.report import curves
from cfnseg.report.gallery import Picture, gallery
from cfnseg.report.heatmap import heatmap
from cfnseg.report.markdown import RULE, shown


def page_of(summary: dict[str, Any], labels: LabelMap, picture: Callable[[int], Picture], run_folder: Path | None) -> str:
    """The page for the content of report.json.

    Args:
        summary: see `cfnseg.report.summary.summary_of`.
        labels: the classes, for their colours.
        picture: index -> RGB, truth and prediction of an image.
        run_folder: where config.json and log.jsonl are; None or a folder without them leaves settings and curves out.
    """
    config = _read_config(run_folder)
    home = environment() if "environment" not in config else config.pop("environment")
    facts = summary["facts"]
    loader = Environment(loader=PackageLoader("cfnseg.report", ""), autoescape=True, undefined=StrictUndefined,
                         trim_blocks=True, lstrip_blocks=True)
    loader.filters |= {"shown": shown, "css": lambda color: "#{:02x}{:02x}{:02x}".format(*color)}
    return loader.get_template("template.html.jinja").render(
        summary=summary, rule=RULE, cards=_cards(summary), colors=[label.color for label in labels.labels],
        title=" · ".join([name for name in (config.get("name"), facts.get("data"), facts.get("split")) if name]),
        gallery=gallery(summary["images"], picture, labels), frame=curves,
        charts=curves.charts(read_log(run_folder / "log.jsonl")) if run_folder else [],
        heatmap=heatmap(summary["confusion"], labels.names),
        settings=_sections(config), environment={key: _text(value) for key, value in home.items()})


def _cards(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, number and note of each summary card beside mIoU; scores that were not counted have none."""
    pixels = sum(row["truth_pixels"] for row in summary["classes"])
    scores = [("Pixel accuracy", "pixel_accuracy", "of all counted pixels"),
              ("Mean accuracy", "mean_accuracy", "mean recall of the classes"),
              ("Boundary mIoU", "boundary_miou", "within 2 % of the diagonal"),
              ("Image-head mAP", "image_map", "classes in an image"),
              ("Loss", "loss", "mean cross-entropy")]
    cards = [(name, shown(summary[key]), note) for name, key, note in scores if summary[key] is not None]
    return [*cards, ("Images", f"{summary['num_images']:,}", f"{pixels:,} counted pixels")]


def _read_config(run_folder: Path | None) -> dict[str, Any]:
    path = run_folder / "config.json" if run_folder else None
    return json.loads(path.read_text()) if path and path.exists() else {}


def _sections(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Settings as text, by section; those of no section come first, as "run"."""
    sections = {"run": {key: value for key, value in config.items() if not isinstance(value, dict)}}
    sections |= {name: values for name, values in config.items() if isinstance(values, dict)}
    return {name: {key: _text(value) for key, value in values.items()} for name, values in sections.items() if values}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
