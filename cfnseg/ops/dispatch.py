"""Which version of an operation runs."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import Tensor


def traced() -> bool:
    """True where plain torch operations run: an exporter knows no others, and CFNSEG_OPS=reference asks for them.

    Whoever calls an operation asks this, also while compiling. The operation itself asks `version_for` as it runs.
    """
    exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()
    return exporting or os.environ.get("CFNSEG_OPS", "") == "reference"


def version_for(values: Tensor) -> str:
    """Triton's for 16 and 32 bits on CUDA where Triton is installed, else the lean one, which runs anywhere.

    The environment variable CFNSEG_OPS forces one for all operations: "reference" (the plain torch operations, e.g. to see
    whether a difference comes from here), "lean" or "triton". An exporter gets the reference, as it knows torch's operations only.

    Raises:
        ValueError: another value of CFNSEG_OPS.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return "reference"
    forced = os.environ.get("CFNSEG_OPS", "")
    if forced not in ("", "reference", "lean", "triton"):
        raise ValueError(f"CFNSEG_OPS: expected reference, lean or triton, got {forced!r}")
    return forced or ("triton" if values.is_cuda and values.dtype != torch.float64 and find_spec("triton") else "lean")
