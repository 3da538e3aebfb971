"""Which version of an operation runs."""

from __future__ import annotations

import os

import torch
from torch import Tensor


def version_for(_: Tensor) -> str:
    """The lean one, which runs anywhere.

    The environment variable CFNSEG_OPS forces one for all operations: "reference" (the plain torch operations, e.g. to see
    whether a difference comes from here) or "lean". An exporter gets the reference, as it knows torch's operations only.

    Raises:
        ValueError: another value of CFNSEG_OPS.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return "reference"
    forced = os.environ.get("CFNSEG_OPS", "")
    if forced not in ("", "reference", "lean"):
        raise ValueError(f"CFNSEG_OPS: expected reference or lean, got {forced!r}")
    return forced or "lean"
