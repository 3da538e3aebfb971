"""The operations of cfnseg.ops against the composition of torch operations."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cfnseg.errors import first_line
from cfnseg.lab.plots import plot_ratios
from cfnseg.lab.timing import Peak, in_turns
from cfnseg.ops import dense_argmax, dense_cross_entropy, lc_fuse, lc_fuse_reference, upsample
from cfnseg.ops import dense_reference as reference
from cfnseg.ops.dispatch import forced
from cfnseg.report.text import write_text
from cfnseg.storage import write_atomic

Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """What is measured: "lc_fuse", "cross_entropy" or "argmax"; images; height and width of the result; K or C; the grid, of lc_fuse."""

    op: str
    batch: int
    size: tuple[int, int]
    channels: int
    grid: tuple[int, int] = (1, 1)

    @property
    def name(self) -> str:
        """For the table."""
        own = f"K = {self.channels}, grid {self.grid[0]}x{self.grid[1]}" if self.op == "lc_fuse" else f"{self.channels} classes"
        return f"{self.op}, {self.batch} x {self.size[0]}x{self.size[1]}, {own}"


def cases(ops: Iterable[str], batches: Iterable[int], scales: Iterable[float]) -> list[Case]:
    """The sizes that docs/performance.md has, times ``scales``; the dense operations take a quarter of the images, at least one."""
    fusions = [(128, 128, 128, (6, 8)), (128, 128, 128, (1, 1))]
    dense = [(512, 1024, 19, (1, 1)), (512, 512, 150, (1, 1))]
    return [Case(op, batch if op == "lc_fuse" else max(1, batch // 4), (round(h * s), round(w * s)), channels, grid)
            for op, batch, s in itertools.product(ops, batches, scales) for h, w, channels, grid in (fusions if op == "lc_fuse" else dense)]


def versions(case: Case, device: str, dtype: torch.dtype, compiled: bool) -> dict[str, Work]:
    """Forward and backward (of argmax: forward) of each version of an operation, "eager" first, on the same random inputs."""
    torch.manual_seed(0)
    ours = ["lean", *["triton"] * (device == "cuda")]
    if case.op == "lc_fuse":
        eager, names, inputs = _fusions(case, device, dtype)
    else:
        eager, names, inputs = _dense(case, device, dtype)
    found = {"eager": functools.partial(_run, eager, inputs)}
    if compiled:
        found["compiled eager"] = functools.partial(_run, torch.compile(eager), inputs)
    for name, work in names.items():
        if name == "ours":
            found |= {version: functools.partial(_run, work, inputs, version) for version in ours}
        else:
            found[name] = functools.partial(_run, work, inputs)
    return found


def _run(work: Callable[[], Tensor], inputs: list[Tensor], version: str = "lean") -> None:
    for tensor in inputs:
        tensor.grad = None
    with forced(version):
        result = work()
        if inputs:
            result.backward(torch.ones_like(result))


def _fusions(case: Case, device: str, dtype: torch.dtype) -> tuple[Work, dict[str, Work], list[Tensor]]:
    """Four branches at the result's size, a half, a quarter and an eighth of it; each image is a crop with a region of its own."""
    sizes = [tuple(max(1, n >> s) for n in case.size) for s in range(4)]
    branches = [torch.randn(case.batch, case.channels, *size, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
                for size in sizes]
    weight = torch.randn(4, case.channels, *case.grid, device=device)
    bias = torch.randn(case.channels, *case.grid, device=device)
    corner = 0.4 * torch.rand(case.batch, 2, device=device)
    region = torch.cat([corner, corner + 0.5], 1)
    shared = torch.randn(4, case.channels, *case.size, 1, 1, device=device)
    inputs = [*branches, weight, bias, shared]
    for tensor in inputs:
        tensor.requires_grad_()

    def unfolded() -> Tensor:  # a weight per place for one size only, no region: the usual locally-connected layer of 1x1
        stack = torch.stack([upsample(b, case.size) for b in branches], 1).unfold(3, 1, 1).unfold(4, 1, 1)
        return F.relu((stack * shared).sum((1, -1, -2)))

    return (functools.partial(lc_fuse_reference, branches, weight, bias, region, case.size),
            {"unfold": unfolded, "ours": functools.partial(lc_fuse, branches, weight, bias, region, case.size)}, inputs)


def _dense(case: Case, device: str, dtype: torch.dtype) -> tuple[Work, dict[str, Work], list[Tensor]]:
    """From logits of stride 4."""
    cells = [-(-n // 4) for n in case.size]
    logits = torch.randn(case.batch, case.channels, *cells, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    if case.op == "argmax":
        return (functools.partial(reference.argmax, logits, case.size), {"ours": functools.partial(dense_argmax, logits, case.size)}, [])
    target = torch.randint(0, case.channels, (case.batch, *case.size), device=device, dtype=torch.uint8)
    logits.requires_grad_()

    def composed() -> Tensor:
        full = reference.upsample_logits(logits.to(torch.promote_types(dtype, torch.float32)), case.size)
        return F.cross_entropy(full, target.long(), ignore_index=255)

    return (composed,
            {"ours": functools.partial(dense_cross_entropy, logits, target)}, [logits])


def moved_bytes(case: Case, itemsize: int) -> int:
    """What must be read and written once: inputs and results, of lc_fuse and the loss also gradients."""
    pixels = case.batch * case.size[0] * case.size[1]
    result = pixels * case.channels * itemsize
    if case.op == "lc_fuse":  # the result, its gradient and the result again; branches twice and their gradients
        return 3 * (result + sum(result >> 2 * s for s in range(4)))
    logits = result // 16
    return (2 * logits if case.op == "cross_entropy" else logits) + pixels


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that a device reads and writes in copying, measured."""
    cuda = device.type == "cuda"
    source = torch.ones(2**28 if cuda else 2**24, device=device)
    target = torch.empty_like(source)
    with torch.cuda.device_of(source):
        return 2 * source.nbytes / float(np.median(in_turns([lambda: target.copy_(source)], 10, cuda)))


def measure(case: Case, device: str, dtype: torch.dtype, rounds: int, compiled: bool) -> list[dict[str, Any]]:
    """A row per version: case, version, times (rounds,) seconds, peak bytes beyond the inputs (None if compiled on a CPU), or error."""
    cuda = device == "cuda"
    rows, works = [], versions(case, device, dtype, compiled)
    for version, work in works.items():
        try:
            peak = None if version.startswith("compiled") and not cuda else _peak(case, version, device, dtype)
            work()
            rows.append({"case": case.name, "version": version, "peak": peak})
        except Exception as error:  # a rival may lack a compiler or memory; the table says so
            rows.append({"case": case.name, "version": version, "error": f"{type(error).__name__}: {first_line(error)}"})
    able = [row for row in rows if "error" not in row]
    for row, column in zip(able, in_turns([works[row["version"]] for row in able], rounds, cuda).T):
        row["times"] = column.tolist()
        if cuda and case.op == "lc_fuse" and row["version"] == "triton":
            row["bandwidth_share"] = moved_bytes(case, dtype.itemsize) / float(np.median(column)) / copy_bandwidth(torch.device(device))
    return rows


def _peak(case: Case, version: str, device: str, dtype: torch.dtype) -> int:
    """On a CPU in a process of its own, whose memory nothing has touched before."""
    if device == "cuda":
        return _added(case, version, device, dtype)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_added, (case, version, device, dtype))


def _added(case: Case, version: str, device: str, dtype: torch.dtype) -> int:
    work = versions(case, device, dtype, version.startswith("compiled"))[version]
    if device == "cuda":
        work()  # compiles kernels
    peak = Peak(device == "cuda")
    work()
    return peak.added()


def table_of(rows: list[dict[str, Any]], device: str, dtype: torch.dtype) -> str:
    """Rows of `cfnseg.lab.op_speed.measure`; ratios are to the eager composition's, of times the median of the turns'."""
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
    write_text(folder / "ops.md", text)
    eager = {row["case"]: np.array(row["times"]) for row in rows if row["version"] == "eager" and "times" in row}
    bars = [
        (f"{row['case']}: {row['version']}", {"time": float(np.median(np.array(row["times"]) / eager[row["case"]]))})
        for row in rows
        if "times" in row and row["version"] != "eager" and row["case"] in eager
    ]
    if bars:
        write_atomic(folder / "ops.png", lambda temporary: plot_ratios(temporary, bars, "time over the eager composition's"))
    return text
