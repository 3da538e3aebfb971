"""Seconds of interleaved works, and the memory that a work adds at its peak."""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD


def interleaved(
    works: Sequence[Callable[[], object]], rounds: int, cuda: bool = False
) -> np.ndarray:
    """Time works one after the other, ``rounds`` times, so that a slow minute slows all alike.

    Each work runs once before, to warm up.

    Returns:
        (rounds, works) float64 seconds, up to the end of the GPU's work if ``cuda``.
    """
    for work in works:
        work()
    return np.array([[_seconds(work, cuda) for work in works] for _ in range(rounds)])


def _seconds(work: Callable[[], object], cuda: bool) -> float:
    if cuda:  # events count the device's own time; the host only waits for the last
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1000
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class Peak:
    """The most memory in use since this object was made, beyond what was in use then.

    On a GPU it is the allocator's memory, on a CPU the process's resident memory (Linux).
    """

    def __init__(self, cuda: bool = False) -> None:
        self.cuda = cuda
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            self.base = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the peak restarts here, see proc(5)
            self.base = _resident("VmRSS")

    def added(self) -> int:
        """Bytes."""
        most = torch.cuda.max_memory_allocated() if self.cuda else _resident("VmHWM")
        return most - self.base


def _resident(key: str) -> int:
    return 1024 * int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def peak_memory(work: Callable[[], object], cuda: bool = False) -> int | None:
    """Bytes that the second run of ``work`` adds at its peak to the memory in use.

    The first run compiles kernels and fills caches. None on a CPU whose C library is not glibc,
    which cannot return every freed block. `cfnseg.training.hardware.keep_freed_memory` keeps those
    blocks and must not have run before.
    """
    if cuda:
        work()
        peak = Peak(cuda)
        work()
        return peak.added()
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallopt"):
        return None
    # the system takes back each freed block: resident memory is what is in use
    library.mallopt(MMAP_THRESHOLD, 1 << 16)
    try:
        work()
        library.malloc_trim(0)
        peak = Peak()
        work()
        return peak.added()
    finally:  # the values that glibc reaches by itself
        library.mallopt(MMAP_THRESHOLD, 1 << 25)
        library.mallopt(TRIM_THRESHOLD, 1 << 26)
