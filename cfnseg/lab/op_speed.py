"""Speed and memory of the operations in `cfnseg.ops`, against compositions of torch operations."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cfnseg.errors import first_line
from cfnseg.lab.plots import figure, ratio_bars
from cfnseg.ops import dense_argmax, dense_cross_entropy, lc_fuse, lc_fuse_reference, upsample
from cfnseg.ops import dense_reference as reference
from cfnseg.ops.dispatch import forced
from cfnseg.report.text import table, write_text
from cfnseg.timing import interleaved, peak_memory

Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        op: "lc_fuse", "cross_entropy" or "argmax".
        batch: images.
        size: (H, W) of the result.
        channels: K of lc_fuse, else C.
        grid: (rows, columns) of lc_fuse.
    """

    op: str
    batch: int
    size: tuple[int, int]
    channels: int
    grid: tuple[int, int] = (1, 1)

    @property
    def name(self) -> str:
        """For the table."""
        own = f"{self.channels} classes"
        if self.op == "lc_fuse":
            own = f"K = {self.channels}, grid {self.grid[0]}x{self.grid[1]}"
        return f"{self.op}, {self.batch} x {self.size[0]}x{self.size[1]}, {own}"


def cases(ops: Iterable[str], batches: Iterable[int], scales: Iterable[float]) -> list[Case]:
    """The cases of docs/performance.md, with sizes multiplied by ``scales``.

    The dense operations take a quarter of the images, at least one.
    """
    fusions = [(128, 128, 128, (6, 8)), (128, 128, 128, (1, 1))]
    dense = [(512, 1024, 19, (1, 1)), (512, 512, 150, (1, 1))]
    return [
        Case(op, batch if op == "lc_fuse" else max(1, batch // 4), (round(h * s), round(w * s)), *k)
        for op, batch, s in itertools.product(ops, batches, scales)
        for h, w, *k in (fusions if op == "lc_fuse" else dense)
    ]


def versions(case: Case, device: str, dtype: torch.dtype, compiled: bool) -> dict[str, Work]:
    """Forward and backward of each version, "eager" first, on the same random inputs.

    Each work returns the gradients of all inputs, None for an input that its version does not use.
    argmax has no backward: its works return [].
    """
    torch.manual_seed(0)
    make = _fusions if case.op == "lc_fuse" else _dense
    works, ours, inputs = make(case, device, dtype)
    if compiled:
        works["compiled eager"] = torch.compile(works["eager"])
    found: dict[str, Work] = {
        name: functools.partial(_run, work, inputs) for name, work in works.items()
    }
    for version in ("lean", *["triton"] * (device == "cuda")):
        found[version] = functools.partial(_run, ours, inputs, version)
    return found


def _run(
    work: Callable[[], Tensor], inputs: list[Tensor], version: str = "lean"
) -> Sequence[Tensor | None]:
    with forced(version):
        result = work()
        if not inputs:
            return []
        return torch.autograd.grad(result, inputs, torch.ones_like(result), allow_unused=True)


def _fusions(case: Case, device: str, dtype: torch.dtype) -> tuple[dict[str, Work], Work, list]:
    """Others, ours, and inputs: four branches of the result's size, a half, a quarter, an eighth.

    Each image is a crop with its own region.
    """
    shape, layout = (case.batch, case.channels), torch.channels_last
    sizes = [tuple(max(1, n >> s) for n in case.size) for s in range(4)]
    branches = [
        torch.randn(*shape, *size, device=device, dtype=dtype).contiguous(memory_format=layout)
        for size in sizes
    ]
    weight = torch.randn(4, case.channels, *case.grid, device=device)
    bias = torch.randn(case.channels, *case.grid, device=device)
    corner = 0.4 * torch.rand(case.batch, 2, device=device)
    region = torch.cat([corner, corner + 0.5], 1)
    shared = torch.randn(4, case.channels, *case.size, 1, 1, device=device)
    inputs = [tensor.requires_grad_() for tensor in (*branches, weight, bias, shared)]

    def unfolded() -> Tensor:  # the usual locally-connected 1x1 layer: one size only, no region
        stack = torch.stack([upsample(b, case.size) for b in branches], 1)
        return F.relu((stack.unfold(3, 1, 1).unfold(4, 1, 1) * shared).sum((1, -1, -2)))

    arguments = branches, weight, bias, region, case.size
    others: dict[str, Work] = {
        "eager": functools.partial(lc_fuse_reference, *arguments),
        "unfold": unfolded,
    }
    return others, functools.partial(lc_fuse, *arguments), inputs


def _dense(case: Case, device: str, dtype: torch.dtype) -> tuple[dict[str, Work], Work, list]:
    """Others, ours, and inputs: logits of stride 4."""
    shape = case.batch, case.channels, *(-(-n // 4) for n in case.size)
    logits = torch.randn(shape, device=device, dtype=dtype)
    logits = logits.contiguous(memory_format=torch.channels_last)
    if case.op == "argmax":
        eager = functools.partial(reference.argmax, logits, case.size)
        return {"eager": eager}, functools.partial(dense_argmax, logits, case.size), []
    size = case.batch, *case.size
    target = torch.randint(0, case.channels, size, device=device, dtype=torch.uint8)
    logits.requires_grad_()

    def composed() -> Tensor:
        wide = logits.to(torch.promote_types(dtype, torch.float32))
        full = reference.upsample_logits(wide, case.size)
        return F.cross_entropy(full, target.long(), ignore_index=255)

    return {"eager": composed}, functools.partial(dense_cross_entropy, logits, target), [logits]


def moved_bytes(case: Case, itemsize: int) -> int:
    """What must be read and written once: inputs, results, and gradients (argmax: no gradients)."""
    pixels = case.batch * case.size[0] * case.size[1]
    result = pixels * case.channels * itemsize
    if case.op == "lc_fuse":  # the result twice and its gradient; branches twice, their gradients
        return 3 * (result + sum(result >> 2 * s for s in range(4)))
    logits = result // 16
    return (2 * logits if case.op == "cross_entropy" else logits) + pixels


def copy_bandwidth(device: torch.device) -> float:
    """Measured bytes per second that a device reads and writes while copying."""
    cuda = device.type == "cuda"
    source = torch.ones(2**28 if cuda else 2**24, device=device)
    target = torch.empty_like(source)
    with torch.cuda.device_of(source):
        seconds = interleaved([lambda: target.copy_(source)], 10, cuda)
    return 2 * source.nbytes / float(np.median(seconds))


def measure(
    case: Case, device: str, dtype: torch.dtype, rounds: int, compiled: bool
) -> list[dict[str, Any]]:
    """One row per version.

    Returns:
        case and version; then error, or times, (rounds,) seconds, and peak, extra bytes (None if
        unknown). The Triton version of lc_fuse also has bandwidth_share in 0..1.
    """
    cuda = device == "cuda"
    rows, works = [], versions(case, device, dtype, compiled)
    for version, work in works.items():
        row = {"case": case.name, "version": version}
        try:
            row["peak"] = peak_memory(work, cuda)
        except Exception as error:  # no compiler or no memory, for example; the table has it
            row["error"] = f"{type(error).__name__}: {first_line(error)}"
        rows.append(row)
    able = [row for row in rows if "error" not in row]
    times = interleaved([works[row["version"]] for row in able], rounds, cuda)
    for row, column in zip(able, times.T):
        row["times"] = column.tolist()
        if case.op == "lc_fuse" and row["version"] == "triton":
            speed = moved_bytes(case, dtype.itemsize) / float(np.median(column))
            row["bandwidth_share"] = speed / copy_bandwidth(torch.device(device))
    return rows


def table_of(rows: list[dict[str, Any]], device: str, dtype: torch.dtype) -> str:
    """Markdown table of the rows of `measure`; a ratio is the median of the rounds' ratios."""
    titles = ["operation", "version", "time", "10 to 90 %", "/ eager", "extra memory", "/ eager"]
    eager = {row["case"]: row for row in rows if row["version"] == "eager" and "times" in row}
    cells = [[r["case"], r["version"], *_cells(r, eager.get(r["case"]))] for r in rows]
    shares = [
        f"{row['case']}: {row['bandwidth_share']:.0%} of the device's copy bandwidth, "
        "on the bytes that must move."
        for row in rows
        if "bandwidth_share" in row
    ]
    where = f"CPU, {torch.get_num_threads()} threads"
    if device == "cuda":
        where = torch.cuda.get_device_name()
    note = (
        f"{where}, {str(dtype).removeprefix('torch.')}, torch {torch.__version__}. "
        "Forward and backward (argmax: forward), interleaved. Extra memory is the peak of a call "
        "beyond its inputs; it includes the result and the gradients."
    )
    return "\n".join([*table(titles, cells, left=2), "", note, *shares, ""])


def _cells(row: dict[str, Any], eager: dict[str, Any] | None) -> list[str]:
    if "error" in row:
        return ["failed: " + row["error"].replace("|", "/"), *["-"] * 4]
    low, middle, high = 1000 * np.percentile(row["times"], [10, 50, 90])
    peak = "-" if row["peak"] is None else f"{row['peak'] / 2**20:,.0f} MiB"
    cells = [f"{middle:.1f} ms", f"{low:.1f} to {high:.1f} ms", "-", peak, "-"]
    if eager:
        cells[2] = f"{_ratio(row, eager):.2f}"
        if row["peak"] is not None and eager["peak"]:
            cells[4] = f"{row['peak'] / eager['peak']:.2f}"
    return cells


def _ratio(row: dict[str, Any], eager: dict[str, Any]) -> float:
    return float(np.median(np.array(row["times"]) / np.array(eager["times"])))


def write_results(rows: list[dict[str, Any]], device: str, dtype: torch.dtype, folder: Path) -> str:
    """Write ops.md and ops.png; returns the table's text."""
    text = table_of(rows, device, dtype)
    write_text(folder / "ops.md", text)
    eager = {row["case"]: row for row in rows if row["version"] == "eager" and "times" in row}
    shown = [r for r in rows if "times" in r and r["version"] != "eager" and r["case"] in eager]
    names = [f"{row['case']}: {row['version']}" for row in shown]
    with figure(folder / "ops.png", 9, 1.5 + 0.35 * len(shown)) as axis:
        ratios = {"time": [_ratio(row, eager[row["case"]]) for row in shown]}
        ratio_bars(axis, names, ratios, "time / eager composition (dashed)")
    return text
