"""Compare two scored runs on the same images: python tools/compare.py RUN_A RUN_B [--out DIR]"""

from pathlib import Path

import tyro

from cfnseg.cli import run_tool


def compare(run_a: tyro.conf.Positional[Path], run_b: tyro.conf.Positional[Path], *, out: Path | None = None) -> None:
    """Print both scores, their difference with its interval, the classes, settings and images that differ; write the page.

    Args:
        run_a: a run folder, a report's folder, or a report.json.
        run_b: another; differences are B - A.
        out: where compare.json, compare.md and compare.html go ("" = compare_with_<A> in the folder of B).
    """
    from cfnseg.report.comparison import compare as compare_runs

    compare_runs(run_a, run_b, out)


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(compare))
