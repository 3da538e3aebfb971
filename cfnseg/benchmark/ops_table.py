"""The measurements of operations as a Markdown table and a plot."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cfnseg.report.charts import figure, ratio_bars
from cfnseg.storage import write_atomic


def table_of(rows: list[dict[str, Any]], device: str, dtype: torch.dtype) -> str:
    """Rows of `cfnseg.benchmark.ops.measure`; ratios are to the eager composition's, of times the median of the turns'."""
    lines = ["| operation | version | time | 10 to 90 % | over eager | extra memory | over eager |", "|:--|:--|--:|--:|--:|--:|--:|"]
    for name, group in groupby(rows, key=lambda row: row["case"]):
        group = list(group)
        eager = next((row for row in group if row["version"] == "eager" and "error" not in row), None)
        lines += [f"| {name} | {row['version']} | {' | '.join(_cells(row, eager))} |" for row in group]
    shares = [f"{row['case']}: {row['bandwidth_share']:.0%} of the device's copy bandwidth, on the bytes that must move."
              for row in rows if "bandwidth_share" in row]
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    note = (f"{where}, {str(dtype).removeprefix('torch.')}, torch {torch.__version__}. Forward and backward (of argmax: forward), in "
            "turns; memory is what the first call adds at its peak to that of the inputs, gradients and result included.")
    return "\n".join([*lines, "", note, *shares, ""])


def _cells(row: dict[str, Any], eager: dict[str, Any] | None) -> list[str]:
    if "error" in row:
        return ["failed: " + row["error"].replace("|", "/"), *["-"] * 4]
    times = 1000 * np.array(row["times"])
    low, middle, high = np.percentile(times, [10, 50, 90])
    cells = [f"{middle:.1f} ms", f"{low:.1f} to {high:.1f} ms", "-", "-" if row["peak"] is None else f"{row['peak'] / 2**20:,.0f} MiB", "-"]
    if eager:
        cells[2] = f"{np.median(times / (1000 * np.array(eager['times']))):.2f}"
        if row["peak"] is not None and eager["peak"]:
            cells[4] = f"{row['peak'] / eager['peak']:.2f}"
    return cells


def write_results(rows: list[dict[str, Any]], device: str, dtype: torch.dtype, folder: Path) -> str:
    """Write ops.md and ops.png; returns the table's text."""
    text = table_of(rows, device, dtype)
    write_atomic(folder / "ops.md", lambda beside: beside.write_text(text, encoding="utf-8"))
    _plot(folder / "ops.png", [row for row in rows if "times" in row])
    return text


def _plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """A bar of time for each version of each case, relative to the eager composition."""
    eager = {row["case"]: np.array(row["times"]) for row in rows if row["version"] == "eager"}
    shown = [row for row in rows if row["version"] != "eager" and row["case"] in eager]
    names = [f"{row['case']}: {row['version']}" for row in shown]
    ratios = [float(np.median(np.array(row["times"]) / eager[row["case"]])) for row in shown]
    with figure(path, 9, 1.5 + 0.35 * len(shown)) as axis:
        ratio_bars(axis, names, {"time": ratios}, "time / eager composition (dashed)")
