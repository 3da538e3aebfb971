"""Measuring work: seconds in turns, and the memory that it adds at its peak."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch


def in_turns(works: Sequence[Callable[[], object]], rounds: int, cuda: bool = False) -> np.ndarray:
    """Run each work once to warm up, then all of them ``rounds`` times in turn, so that a slow minute slows all alike.

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

    On a GPU it is the allocator's; on a CPU the process's resident memory, which only grows where freed memory is kept
    (`cfnseg.training.hardware.keep_freed_memory`): there the first work of a process is measured, or work that needs more than
    any before.
    """

    def __init__(self, cuda: bool = False) -> None:
        self.cuda = cuda
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            self.base = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is resident now (Linux, proc(5))
            self.base = _resident("VmRSS")

    def added(self) -> int:
        """Bytes."""
        return (torch.cuda.max_memory_allocated() if self.cuda else _resident("VmHWM")) - self.base


def _resident(key: str) -> int:
    return 1024 * int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
