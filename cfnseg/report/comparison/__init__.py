"""Two scored runs on the same images: which is better, where, and what was set differently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cfnseg.report.comparison.comparison_page import comparison_page, markdown_of
from cfnseg.report.comparison.differences import compare_sides
from cfnseg.report.comparison.sides import read_side
from cfnseg.report.text import write_files


def compare(a: Path, b: Path, out: Path | None = None) -> dict[str, Any]:
    """Compare two scored runs: print the numbers, write compare.json, compare.md and compare.html.

    Args:
        a, b: each a run folder, a report's folder, or a report.json. Differences are B - A.
        out: where to; None = compare_with_<name of a> in the folder of ``b``.

    Returns:
        What compare.json holds; see `cfnseg.report.comparison.differences.compare_sides`.

    Raises:
        UserError: a side cannot be read, the two cannot be compared, or the folder cannot be
            written. A picture that cannot be made is no error: the page says why.
    """
    one, two = read_side(a), read_side(b)
    numbers = compare_sides(one, two)
    out = out or (b if b.is_dir() else b.parent) / f"compare_with_{one.name}"
    text = markdown_of(numbers)
    print(text)
    write_files(out, "compare", numbers, text, lambda: comparison_page(numbers, one, two))
    print(f"comparison: {out / 'compare.html'}")
    return numbers
