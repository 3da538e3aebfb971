"""The one place where a Triton kernel is launched."""

from __future__ import annotations

import torch
from torch import Tensor


def run(kernel, grid: tuple[int, ...], *args: Tensor | int | float | tuple, **constants: int | bool) -> None:
    """Launch ``kernel`` on the device of its first argument, a tensor.

    Triton launches on the current device, which need not be the tensors'.
    """
    with torch.cuda.device_of(args[0]):
        kernel[grid](*args, **constants)
