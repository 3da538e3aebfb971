"""Which version of an operation runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import torch
from torch import Tensor

OLDEST = {"torch": "2.7", "triton": "3.3"}  # the pair that torch pins; pyproject.toml has the same
VERSIONS = ("reference", "lean", "triton")

trusted = False  # True while the kernels themselves are examined: they run unproven, and what they raise is seen
_off: set[str] = set()  # operations whose kernel raised in this process


def traced() -> bool:
    """True where plain torch operations run: an exporter knows no others, and CFNSEG_OPS=reference asks for them.

    Whoever calls an operation asks this, also while compiling. The operation itself asks `version_for` as it runs.
    """
    exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()
    return exporting or os.environ.get("CFNSEG_OPS", "") == "reference"



def version_for(values: Tensor, operation: str) -> str:
    """The version of ``operation`` ("lc_fuse", "cross_entropy" or "classes") for these values.

    The lean version runs on every device. CFNSEG_OPS=triton asks for the Triton kernels: they run where
    `cfnseg.ops.proof` has shown them right, elsewhere the lean version does and one line says why. Triton is
    not the default, as nobody has measured it on a GPU. CFNSEG_OPS=reference or lean forces these.
    An exporter gets the reference, as it knows torch's operations only.

    Raises:
        ValueError: another value of CFNSEG_OPS.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return "reference"
    forced_version = os.environ.get("CFNSEG_OPS", "")
    if forced_version not in ("", *VERSIONS):
        raise ValueError(f"CFNSEG_OPS: expected reference, lean or triton, got {forced_version!r}")
    if forced_version != "triton":
        return forced_version or "lean"
    if trusted:
        return "triton"
    from cfnseg.ops import proof

    usable = operation not in _off and proof.holds(operation, values.dtype, values.device)
    return "triton" if usable else "lean"


def run(package: str, function: str, operation: str, values: Tensor, *args):
    """``function(*args)`` of the lean or kernels module of ``package``, as `version_for` says.

    A kernel that raises is replaced by the lean version, and is off for the rest of the process.
    """
    lean = getattr(import_module(f"{package}.lean"), function)
    if version_for(values, operation) != "triton":
        return lean(*args)
    try:
        return getattr(import_module(f"{package}.kernels"), function)(*args)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        if trusted:
            raise
        result = lean(*args)  # arguments that are wrong are wrong here too
        _off.add(operation)
        say(f"Triton's {operation} failed on {values.device}: {summary(error)}")
        return result


@contextmanager
def forced(version: str) -> Iterator[None]:
    """Within, operations run this version; "triton" still needs its proof."""
    before = os.environ.get("CFNSEG_OPS")
    os.environ["CFNSEG_OPS"] = version
    try:
        yield
    finally:
        os.environ.pop("CFNSEG_OPS") if before is None else os.environ.update(CFNSEG_OPS=before)


def say(reason: str) -> None:
    """One line on stderr: why the lean version runs, and how to report it."""
    print(f"cfnseg: {reason}. The lean version runs instead. To report this: python -m cfnseg check",
          file=sys.stderr, flush=True)


def summary(error: BaseException) -> str:
    """An error's kind and the first line of its text, without the full stop."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".strip(": .")
