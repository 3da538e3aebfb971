"""compare.html: one file with everything in it, in the style of the reports."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cfnseg.compare.drawing import strips
from cfnseg.compare.markdown import EXACT, METRICS, MOST, RULE, caution, p_text, remarks, signed, unknown_settings, verdict, within
from cfnseg.compare.numbers import changed
from cfnseg.compare.pictures import find_images, find_pictures
from cfnseg.compare.sides import Side
from cfnseg.report.markdown import shown
from cfnseg.report.thumbnails import thumbnail

EACH, TILES = 4, 12  # images shown that changed most in either direction: masks, and single labels


def compare_page(numbers: dict[str, Any], a: Side, b: Side) -> str:
    """The page for the content of compare.json; a picture that cannot be made is replaced by the reason."""
    by_miou = numbers["metric"] == "miou"
    ends = [abs(x) for row in numbers["classes"] for x in row["ci95"] if x is not None]
    loader = Environment(loader=PackageLoader("cfnseg.report", "templates"), autoescape=True, undefined=StrictUndefined,
                         trim_blocks=True, lstrip_blocks=True)
    loader.filters |= {"shown": shown, "signed": signed, "within": within, "css": lambda color: "#{:02x}{:02x}{:02x}".format(*color)}
    words = {"verdict": verdict(numbers), "remarks": remarks(numbers), "caution": caution(numbers), "p": p_text(numbers["p_value"]),
             "unknown_settings": unknown_settings(numbers), "rule": RULE + EXACT * (not by_miou)}
    return loader.get_template("compare.html.jinja").render(
        n=numbers, metric=METRICS[numbers["metric"]], sign=1 if by_miou else -1, changed=changed, reach=max(ends, default=0) or 1,
        words=words, rows=numbers["images"][:MOST], **(_strips if by_miou else _tiles)(numbers["images"], a, b))


def _strips(images: list[dict[str, Any]], a: Side, b: Side) -> dict[str, Any]:
    """The images of a segmentation that gained most ("up") and lost most ("down"), the largest change first."""
    parts = {"up": [row for row in images if row["difference"] > 0][:EACH], "down": [row for row in images if row["difference"] < 0][:EACH]}
    found = find_pictures(a, b, [row["name"] for rows in parts.values() for row in rows])
    drawn = strips(found.shown, {row["name"]: row for row in images}, found.labels) if found.labels else []
    sides = {which: [s for row in rows for s in drawn if s.row["name"] == row["name"]] for which, rows in parts.items()}
    return {"strips": sides, "missing": found.missing, "legend": found.labels.labels if found.labels else []}


def _tiles(images: list[dict[str, Any]], a: Side, b: Side) -> dict[str, Any]:
    """The images with one label that B alone has right ("up") and that A alone has right ("down")."""
    parts = {which: [row for row in images if row["b_right"] == right][:TILES] for which, right in (("up", True), ("down", False))}
    found, missing = find_images(a, b, [row["name"] for rows in parts.values() for row in rows])
    tiles = {which: [thumbnail(row, found[row["name"]], 320) for row in rows if found] for which, rows in parts.items()}
    return {"tiles": tiles, "missing": missing}
