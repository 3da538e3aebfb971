"""Which version of an operation runs, and the one place that launches a Triton kernel."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import torch
from torch import Tensor

OLDEST = {"torch": "2.7", "triton": "3.3"}  # the pair that torch pins; pyproject.toml has the same
VERSIONS = ("reference", "lean", "triton")

trusted = False  # True while the kernels are examined: they run unproven, and their errors pass
_off: set[str] = set()  # operations whose kernel raised in this process


def traced() -> bool:
    """True where plain torch operations run: under an exporter, or if CFNSEG_OPS=reference.

    The caller of an operation asks this, also while compiling. The operation itself asks
    `version_for` as it runs.
    """
    exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()
    return exporting or os.environ.get("CFNSEG_OPS", "") == "reference"


def version_for(values: Tensor, operation: str) -> str:
    """The version of ``operation`` ("lc_fuse", "cross_entropy" or "classes") for these values.

    The lean version runs on every device. CFNSEG_OPS=triton asks for the Triton kernels: they
    run where `cfnseg.ops.proof` has shown them right. Elsewhere the lean version runs and one
    line says why. Triton is not the default, because its speed on a GPU is unmeasured.
    CFNSEG_OPS=reference or lean forces these.

    Raises:
        ValueError: another value of CFNSEG_OPS.
    """
    wanted = os.environ.get("CFNSEG_OPS", "")
    if wanted not in ("", *VERSIONS):
        raise ValueError(f"CFNSEG_OPS: expected reference, lean or triton, got {wanted!r}")
    if wanted != "triton":
        return wanted or "lean"
    if trusted:
        return "triton"
    from cfnseg.ops import proof

    usable = operation not in _off and proof.holds(operation, values.dtype, values.device)
    return "triton" if usable else "lean"


def run(family: str, function: str, operation: str, values: Tensor, *args):
    """``function(*args)`` from the ``family``'s lean or Triton module, without autocast.

    `version_for` chooses the version. The lean version replaces a kernel that raises, for the
    rest of the process.

    Args:
        family: "lc" or "dense".
        function: its name in ``<family>_lean`` and ``<family>_triton``.
        operation: as `version_for` takes it.
        values: decide the version by their dtype and device.
    """
    lean = getattr(import_module(f"cfnseg.ops.{family}_lean"), function)
    with torch.autocast(values.device.type, enabled=False):
        if version_for(values, operation) != "triton":
            return lean(*args)
        try:
            return getattr(import_module(f"cfnseg.ops.{family}_triton"), function)(*args)
        except Exception as error:
            if trusted or isinstance(error, torch.OutOfMemoryError):
                raise
            result = lean(*args)  # wrong arguments raise here too, so the kernel stays on
            _off.add(operation)
            say(f"Triton's {operation} failed on {values.device}: {summary(error)}")
            return result


def launch(kernel, grid: tuple[int, ...], *args: Tensor | int | float | tuple, **constants) -> None:
    """Launch ``kernel`` on the device of its first argument, a tensor.

    Triton launches on the current device, which need not hold the tensors.
    """
    with torch.cuda.device_of(args[0]):
        kernel[grid](*args, **constants)


@contextmanager
def forced(version: str) -> Iterator[None]:
    """Within, operations run this version; "triton" still needs its proof."""
    before = os.environ.get("CFNSEG_OPS")
    os.environ["CFNSEG_OPS"] = version
    try:
        yield
    finally:
        os.environ.pop("CFNSEG_OPS") if before is None else os.environ.update(CFNSEG_OPS=before)


@functools.cache
def say(reason: str) -> None:
    """Print one line to stderr, once: why the lean version runs, and how to report it."""
    line = (
        f"cfnseg: {reason}. The lean version runs instead. To report this: python -m cfnseg check"
    )
    print(line, file=sys.stderr, flush=True)


def summary(error: BaseException) -> str:
    """An error's kind and the first line of its text, without the full stop."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".strip(": .")
