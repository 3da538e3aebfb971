"""Compare systems: python tools/benchmark.py SUITE [--seeds 3] [--root DIR] [--out DIR] [--only NAME ...]

Continues where it stopped. Started several times, the processes share the runs (one per GPU: set CUDA_VISIBLE_DEVICES).
"""

from pathlib import Path

import tyro

from cfnseg.cli import run_tool


def benchmark(suite: tyro.conf.Positional[Path], *, seeds: int = 3, root: str = "", out: Path | None = None,
              only: tuple[str, ...] = (), table_only: bool = False) -> None:
    """Train and score what has no result yet; write table.md and plot.png.

    Args:
        suite: a config file that defines a ``suite``, e.g. configs/ablation_camvid.py.
        seeds: seeds 0, 1, ... of each system.
        root: the data set's folder ("" = as in the suite).
        out: where runs, results and the table go ("" = runs/<suite>).
        only: these systems alone.
        table_only: train nothing, write the table of what is finished.
    """
    from cfnseg.benchmark.runs import finished, run_suite
    from cfnseg.benchmark.suite import load_suite

    loaded = load_suite(suite)
    folder = out or Path("runs") / loaded.name
    results = finished(loaded, folder, seeds, list(only)) if table_only else run_suite(loaded, folder, seeds, root, list(only))
    from cfnseg.benchmark.table import write_table

    print(write_table(loaded, results, folder))


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(benchmark))
