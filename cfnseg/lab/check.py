"""``cfnseg check``: the machine, and every fast operation against its reference."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from cfnseg import __version__
from cfnseg.errors import first_line
from cfnseg.lab.op_speed import Case, copy_bandwidth, moved_bytes, versions
from cfnseg.lab.timing import Peak, in_turns
from cfnseg.ops import dispatch, proof

ROUNDS = 5
MMAP_THRESHOLD = -3  # glibc's M_MMAP_THRESHOLD
PACKAGES = ("torch", "torchvision", "triton", "timm", "lightning", "segmentation-models-pytorch", "numpy")
CASES = {  # on a CPU, on CUDA
    "lc_fuse": (Case("lc_fuse", 2, (48, 64), 64, (6, 8)), Case("lc_fuse", 8, (128, 128), 128, (6, 8))),
    "cross_entropy": (Case("cross_entropy", 1, (256, 256), 19), Case("cross_entropy", 4, (512, 1024), 19)),
    "classes": (Case("argmax", 1, (256, 256), 19), Case("argmax", 4, (512, 1024), 19))}


@dataclass
class Row:
    """One version of an operation.

    Attributes:
        wrong: what is wrong, "" if nothing is.
        error: the largest error, divided by the reference's largest value; None of the reference itself.
        seconds: median time of one call, forward and backward (classes: forward).
        share: least bytes to be moved, by time and measured copy bandwidth, 0..1.
        memory: bytes that a call adds at its peak.
    """

    operation: str
    version: str
    dtype: torch.dtype
    wrong: str = ""
    error: float | None = None
    seconds: float | None = None
    share: float | None = None
    memory: int | None = None


def check() -> int:
    """Print the machine, and whether each operation is right; paste it into a bug report.

    For each operation, version and dtype: whether it equals the reference, its time, its share of
    the measured copy bandwidth, and its extra memory. On CUDA the Triton kernels are proven anew.
    Exit code: 0 all is right, 1 something is wrong. Takes a minute on a CPU, some on a GPU.
    """
    for name, value in environment().items():
        print(f"{name:14}{value}")
    devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count())] or [torch.device("cpu")]
    rows = []
    for device in devices:
        bandwidth = copy_bandwidth(device)
        print(f"\n{describe(device)}; copies {bandwidth / 1e9:.1f} GB/s\n{HEADER}", flush=True)
        for row in examined(device, bandwidth):
            print(text_of(row), flush=True)
            rows.append(row)
    wrong = [row for row in rows if row.wrong]
    if devices[0].type == "cpu":
        print("\nCUDA is not available: only the lean versions were checked, on the CPU.")
    if wrong:
        print(f"\nWRONG: {len(wrong)} of {len(rows)}")
        for row in wrong:
            print(f"  {row.operation} {row.version} {name_of(row.dtype)}: {row.wrong}")
        return 1
    print("\nAll is right.")
    return 0


def environment() -> dict[str, str]:
    """What the machine runs, by name."""
    found = {"cfnseg": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            found[package.removeprefix("segmentation-models-").replace("pytorch", "smp")] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    found["CUDA"] = f"{torch.version.cuda or 'none in this torch'}, cuDNN {cudnn or '-'}"
    found["CPU threads"] = f"{torch.get_num_threads()} of {os.cpu_count()}"
    found["CFNSEG_OPS"] = os.environ.get("CFNSEG_OPS") or "not set: lean"
    return found


def describe(device: torch.device) -> str:
    """A device in words."""
    if device.type == "cpu":
        return f"CPU: {platform.processor() or platform.machine()}"
    found = torch.cuda.get_device_properties(device)
    return f"{device}: {found.name}, {found.total_memory / 2**30:.1f} GiB, capability {found.major}.{found.minor}"


def examined(device: torch.device, bandwidth: float) -> Iterator[Row]:
    """A row for each operation, dtype and version; the reference is timed only."""
    for operation, cases in CASES.items():
        for dtype in proof.BOUNDS:
            names = ["reference", "lean", *["triton"] * (device.type == "cuda")]
            rows = [Row(operation, name, dtype) for name in names]
            for row in rows[1:]:
                judge(row, device)
            try:
                measure([row for row in rows if not row.wrong], cases[device.type == "cuda"], device, bandwidth)
            except Exception as error:
                rows[0].wrong = f"measuring failed: {type(error).__name__}: {first_line(error)}"
            yield from rows


def judge(row: Row, device: torch.device) -> None:
    """Set the error of a version, and what is wrong with it. Triton's kernels run here after a child process survived them."""
    if row.version == "triton":
        row.wrong = proof.prove(row.operation, row.dtype, device)
        if row.wrong:
            return
    try:
        with examining(row.version):
            row.error = proof.largest_error(row.operation, row.dtype, device)
        if not row.error <= proof.BOUNDS[row.dtype]:
            row.wrong = f"differs from the reference by {row.error:.1e}, more than {proof.BOUNDS[row.dtype]:.0e}"
    except Exception as error:
        row.wrong = f"{type(error).__name__}: {first_line(error)}"


def measure(rows: list[Row], case: Case, device: torch.device, bandwidth: float) -> None:
    """Set time, share of the bandwidth and memory, the versions interleaved."""
    cuda = device.type == "cuda"
    with torch.cuda.device(device) if cuda else examining("lean"):
        found = versions(case, device.type, rows[0].dtype, compiled=False)
        works = [within(row.version, found["eager" if row.version == "reference" else row.version]) for row in rows]
        for row, work in zip(rows, works):
            row.memory = added(work, cuda)
        moved = moved_bytes(case, rows[0].dtype.itemsize)
        for row, seconds in zip(rows, np.median(in_turns(works, ROUNDS, cuda), axis=0)):
            row.seconds, row.share = float(seconds), moved / float(seconds) / bandwidth


def within(name: str, work: Callable[[], object]) -> Callable[[], None]:
    """The work with one version of the operations."""
    def run() -> None:
        with examining(name):
            work()
    return run


@contextmanager
def examining(name: str) -> Iterator[None]:
    """Within, one version runs, Triton's unproven."""
    before, dispatch.trusted = dispatch.trusted, True
    try:
        with dispatch.forced(name):
            yield
    finally:
        dispatch.trusted = before


def added(work: Callable[[], object], cuda: bool) -> int | None:
    """Bytes that the work adds at its peak to what was there; None on a CPU whose C library is not glibc."""
    if cuda:
        work()  # compiles kernels
        peak = Peak(cuda)
        work()
        return peak.added()
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallopt"):
        return None
    library.mallopt(MMAP_THRESHOLD, 1 << 16)  # a freed block goes back to the system: resident memory is what is in use
    work()
    library.malloc_trim(0)
    peak = Peak()
    work()
    library.mallopt(MMAP_THRESHOLD, 1 << 25)
    return peak.added()


HEADER = f"{'operation':15}{'version':11}{'dtype':10}{'error':>9}{'bound':>8}{'time':>11}{'of copy':>9}{'memory':>11}"


def text_of(row: Row) -> str:
    """A line of the table."""
    start = f"{row.operation:15}{row.version:11}{name_of(row.dtype):10}"
    if row.wrong:
        return f"{start}WRONG: {row.wrong}"
    error = "-" if row.error is None else f"{row.error:.1e}"
    bound = "-" if row.error is None else f"{proof.BOUNDS[row.dtype]:.0e}"
    memory = "-" if row.memory is None else f"{row.memory / 2**20:.1f} MiB"
    if row.seconds is None:
        return f"{start}{error:>9}{bound:>8}   not measured"
    return f"{start}{error:>9}{bound:>8}{row.seconds * 1e3:8.2f} ms{row.share:9.1%}{memory:>11}"


def name_of(dtype: torch.dtype) -> str:
    """A dtype without torch's name."""
    return str(dtype).removeprefix("torch.")
