"""``cfnseg check``: the machine, and every fast operation against its reference."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from cfnseg import __version__
from cfnseg.errors import first_line
from cfnseg.lab.op_speed import Case, copy_bandwidth, moved_bytes, versions
from cfnseg.ops import dispatch, proof
from cfnseg.timing import interleaved, peak_memory

ROUNDS = 5
PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "triton": "triton",
    "timm": "timm",
    "lightning": "lightning",
    "smp": "segmentation-models-pytorch",
    "numpy": "numpy",
}
CASES = {  # on a CPU, on CUDA
    "lc_fuse": (
        Case("lc_fuse", 2, (48, 64), 64, (6, 8)),
        Case("lc_fuse", 8, (128, 128), 128, (6, 8)),
    ),
    "cross_entropy": (
        Case("cross_entropy", 1, (256, 256), 19),
        Case("cross_entropy", 4, (512, 1024), 19),
    ),
    "classes": (Case("argmax", 1, (256, 256), 19), Case("argmax", 4, (512, 1024), 19)),
}
HEADER = (
    f"{'operation':15}{'version':11}{'dtype':10}{'error':>9}{'bound':>8}{'time':>11}"
    f"{'of copy':>9}{'memory':>11}"
)


@dataclass
class Row:
    """One version of an operation.

    Attributes:
        wrong: what is wrong, "" if nothing is.
        error: largest error / the reference's largest value; None for the reference itself.
        seconds: median time of one call, forward and backward (classes: forward).
        share: least bytes to be moved / (time x measured copy bandwidth), 0..1.
        memory: bytes that a call adds at its peak; None if unknown.
    """

    operation: str
    version: str
    dtype: torch.dtype
    wrong: str = ""
    error: float | None = None
    seconds: float | None = None
    share: float | None = None
    memory: int | None = None

    def __str__(self) -> str:
        """Its line of the table."""
        start = f"{self.operation:15}{self.version:11}{_short(self.dtype):10}"
        if self.wrong:
            return f"{start}WRONG: {self.wrong}"
        error, bound = "-", "-"
        if self.error is not None:
            error, bound = f"{self.error:.1e}", f"{proof.BOUNDS[self.dtype]:.0e}"
        if self.seconds is None:
            return f"{start}{error:>9}{bound:>8}   not measured"
        memory = "-" if self.memory is None else f"{self.memory / 2**20:.1f} MiB"
        time = f"{self.seconds * 1e3:8.2f} ms{self.share:9.1%}"
        return f"{start}{error:>9}{bound:>8}{time}{memory:>11}"


def check() -> int:
    """Print the machine, and whether each operation is right; paste it into a bug report.

    For each operation, version and dtype: whether it equals the reference, its time, its share of
    the measured copy bandwidth, and its extra memory. On CUDA the Triton kernels are proven anew.
    Exit code: 0 all is right, 1 something is wrong. Takes a minute on a CPU, some on a GPU.
    """
    for name, value in environment().items():
        print(f"{name:14}{value}")
    gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    rows = []
    for device in gpus or [torch.device("cpu")]:
        bandwidth = copy_bandwidth(device)
        print(f"\n{_describe(device)}; copies {bandwidth / 1e9:.1f} GB/s\n{HEADER}", flush=True)
        for row in _examined(device, bandwidth):
            print(row, flush=True)
            rows.append(row)
    if not gpus:
        print("\nCUDA is not available: only the lean versions were checked, on the CPU.")
    wrong = [row for row in rows if row.wrong]
    if not wrong:
        print("\nAll is right.")
        return 0
    print(f"\nWRONG: {len(wrong)} of {len(rows)}")
    for row in wrong:
        print(f"  {row.operation} {row.version} {_short(row.dtype)}: {row.wrong}")
    return 1


def environment() -> dict[str, str]:
    """What the machine runs, by name."""
    found = {
        "cfnseg": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    for name, package in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = "not installed"
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    found["CUDA"] = f"{torch.version.cuda or 'none in this torch'}, cuDNN {cudnn or '-'}"
    found["CPU threads"] = f"{torch.get_num_threads()} of {os.cpu_count()}"
    found["CFNSEG_OPS"] = os.environ.get("CFNSEG_OPS") or "not set: lean"
    return found


def _describe(device: torch.device) -> str:
    if device.type == "cpu":
        return f"CPU: {platform.processor() or platform.machine()}"
    found = torch.cuda.get_device_properties(device)
    memory = found.total_memory / 2**30
    return f"{device}: {found.name}, {memory:.1f} GiB, capability {found.major}.{found.minor}"


def _examined(device: torch.device, bandwidth: float) -> Iterator[Row]:
    """A row for each operation, dtype and version; the reference is timed only."""
    cuda = device.type == "cuda"
    for operation, cases in CASES.items():
        for dtype in proof.BOUNDS:
            names = ["reference", "lean", *["triton"] * cuda]
            rows = [Row(operation, name, dtype) for name in names]
            for row in rows[1:]:
                judge(row, device)
            try:
                right = [row for row in rows if not row.wrong]
                _measure(right, cases[cuda], device, bandwidth)
            except Exception as error:
                reason = f"{type(error).__name__}: {first_line(error)}"
                rows[0].wrong = f"measuring failed: {reason}"
            yield from rows


def judge(row: Row, device: torch.device) -> None:
    """Set the error of a version, and what is wrong with it.

    Triton's kernels run here only after a child process survived them.
    """
    if row.version == "triton":
        row.wrong = proof.prove(row.operation, row.dtype, device)
        if row.wrong:
            return
    try:
        with _unproven(), dispatch.forced(row.version):
            row.error = proof.largest_error(row.operation, row.dtype, device)
        bound = proof.BOUNDS[row.dtype]
        if not row.error <= bound:
            row.wrong = f"differs from the reference by {row.error:.1e}, more than {bound:.0e}"
    except Exception as error:
        row.wrong = f"{type(error).__name__}: {first_line(error)}"


def _measure(rows: list[Row], case: Case, device: torch.device, bandwidth: float) -> None:
    """Set time, share of the bandwidth and memory; the versions run interleaved."""
    cuda, dtype = device.type == "cuda", rows[0].dtype
    with torch.cuda.device(device) if cuda else nullcontext(), _unproven():
        found = versions(case, device.type, dtype, compiled=False)
        works = [found["eager" if r.version == "reference" else r.version] for r in rows]
        memory = [peak_memory(work, cuda) for work in works]
        times = np.median(interleaved(works, ROUNDS, cuda), axis=0)
    moved = moved_bytes(case, dtype.itemsize)
    for row, peak, seconds in zip(rows, memory, times):
        row.memory, row.seconds, row.share = (
            peak,
            float(seconds),
            moved / float(seconds) / bandwidth,
        )


@contextmanager
def _unproven() -> Iterator[None]:
    """Within, Triton's kernels run without a proof."""
    before, dispatch.trusted = dispatch.trusted, True
    try:
        yield
    finally:
        dispatch.trusted = before


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
