"""`compare`: what tools/compare.py does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cfnseg.compare.markdown import markdown_of
from cfnseg.compare.numbers import compare_sides
from cfnseg.compare.page import compare_page
from cfnseg.compare.sides import read_side
from cfnseg.storage import write_atomic


def compare(a: Path, b: Path, out: Path | None = None) -> dict[str, Any]:
    """Compare two scored runs; print the numbers and write compare.json, compare.md and compare.html.

    Args:
        a, b: each a run folder, a report's folder, or a report.json; differences are those of ``b`` less those of ``a``.
        out: where to; None = compare_with_<name of a> in the folder of ``b``.

    Returns:
        What compare.json holds; see `cfnseg.compare.numbers.compare_sides`.

    Raises:
        UserError: a side cannot be read, the two cannot be compared, or the folder cannot be written. A picture that cannot
            be made is no error: the page says why.
    """
    one, two = read_side(a), read_side(b)
    numbers = compare_sides(one, two)
    out = out or (b if b.is_dir() else b.parent) / f"compare_with_{one.name}"
    text = markdown_of(numbers)
    _write(out / "compare.json", json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    _write(out / "compare.md", text)
    print(text)
    _write(out / "compare.html", compare_page(numbers, one, two))
    print(f"comparison: {out / 'compare.html'}")
    return numbers


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda beside: beside.write_text(text, encoding="utf-8"))
