"""Whether a Triton kernel may run here: a child process shows it once, then the disk remembers.

The child runs the operation forward and backward on small inputs and compares it with the
reference. A kernel that aborts ends the child only. The record's name hashes what the verdict
depends on: the sources, the versions of Triton and torch, and the GPU.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cfnseg.ops import dense, dispatch
from cfnseg.ops.dense_reference import upsample_logits
from cfnseg.ops.lc_fuse import lc_fuse
from cfnseg.ops.lc_reference import lc_fuse_reference

OPERATIONS = ("lc_fuse", "cross_entropy", "classes")
# bounds of errors relative to the largest value
BOUNDS = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
SECONDS = 300  # a child compiles some dozen kernels
HERE = Path(__file__).parent
SOURCES = (
    "dispatch.py",
    "proof.py",
    "dense_kernels.py",
    "dense_reference.py",
    "dense_triton.py",
    "lc_kernels.py",
    "lc_reference.py",
    "lc_triton.py",
)
Pairs = Iterator[tuple[Tensor, Tensor]]  # found and expected


def holds(operation: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the Triton kernels of an operation are known to be right; False for float64.

    The first question on a machine takes about a minute. If the answer is no, rank 0 says why,
    once.
    """
    if dtype not in BOUNDS:
        return False
    reason = _verdict(operation, dtype, device)
    if reason and os.environ.get("RANK", "0") == "0":
        dispatch.say(reason)
    return not reason


def prove(operation: str, dtype: torch.dtype, device: torch.device) -> str:
    """Let a child process examine the kernels now, and remember its verdict.

    Returns:
        "" if the kernels are right, else why they are not used.
    """
    reason = missing(device)
    if reason:
        return reason
    key = _key(operation, dtype, device)
    found, lasting = _examine(operation, dtype, device)
    if found:
        name = f"{operation} in {str(dtype).removeprefix('torch.')}"
        reason = f"Triton's {name} is not used on {key['device']}: {found}"
    if lasting:
        with suppress(OSError):
            _path(key).parent.mkdir(parents=True, exist_ok=True)
            _path(key).write_text(json.dumps({"key": key, "reason": reason}, indent=1))
    return reason


def missing(device: torch.device) -> str:
    """What Triton lacks on this device; "" if nothing."""
    for package, oldest in dispatch.OLDEST.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            return f"Triton is not used: {package} is not installed"
        if _numbers(found) < _numbers(oldest):
            return f"Triton is not used: it needs {package} >= {oldest}, and {found} is installed"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"Triton is not used: it needs CUDA, and the tensors are on {device.type}"
    return ""


def folder() -> Path:
    """The folder of the verdicts, in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cfnseg" / "proofs"


@functools.cache
def _verdict(operation: str, dtype: torch.dtype, device: torch.device) -> str:
    reason = missing(device)
    if reason:
        return reason
    path = _path(_key(operation, dtype, device))
    known = _read(path)
    if known is not None:
        return known
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("w")
    except OSError as error:
        place = f"{path.parent} ({error.strerror})"
        return f"Triton is not used: its verdicts cannot be kept in {place}"
    with lock:
        with suppress(OSError):  # without locks on this file system, two proofs only cost time
            fcntl.flock(lock, fcntl.LOCK_EX)
        known = _read(path)  # another process may have been first
        return prove(operation, dtype, device) if known is None else known


def _key(operation: str, dtype: torch.dtype, device: torch.device) -> dict[str, str]:
    name, capability = "the interpreter", ""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        capability = str(torch.cuda.get_device_capability(device))
    sources = b"\0".join((HERE / source).read_bytes() for source in SOURCES)
    return {
        "operation": operation,
        "dtype": str(dtype),
        "torch": torch.__version__,
        "triton": version("triton"),
        "device": name,
        "capability": capability,
        "sources": hashlib.sha256(sources).hexdigest(),
    }


def _path(key: dict[str, str]) -> Path:
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return folder() / f"{name}.json"


def _read(path: Path) -> str | None:
    """The verdict in a file; None without one, as while another process writes it."""
    try:
        reason = json.loads(path.read_text())["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return reason if isinstance(reason, str) else None


def _examine(operation: str, dtype: torch.dtype, device: torch.device) -> tuple[str, bool]:
    """What is wrong ("" for nothing), and whether the next process would find the same."""
    args = operation, str(dtype).removeprefix("torch."), str(device)
    paths = filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "cfnseg.ops.proof", *args],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        return f"its test could not start ({error.strerror})", False
    try:
        lines = child.communicate(timeout=SECONDS)[0].splitlines()
    except subprocess.TimeoutExpired:
        return f"its test did not end in {SECONDS} s", False
    finally:
        if child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # with the compilers that it started
            child.wait()
    code = child.returncode
    if code:
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"its test died ({ended})", True
    if not lines:
        return "its test ended without a verdict", True
    return tuple(json.loads(lines[-1]))


def _main(operation: str, dtype: str, device: str) -> None:
    dispatch.trusted, kind = True, getattr(torch, dtype)
    reason, lasting = "", True
    try:
        with dispatch.forced("triton"):
            error = largest_error(operation, kind, torch.device(device))
        if not error <= BOUNDS[kind]:  # nan is wrong too
            reason = f"its result differs from the reference by {error:.1e}"
    except torch.OutOfMemoryError:
        reason, lasting = "its test ran out of memory", False
    except Exception as error:
        reason = dispatch.summary(error)
    print(json.dumps([reason, lasting]))


def largest_error(operation: str, dtype: torch.dtype, device: torch.device) -> float:
    """The largest error of values and gradients, for the version in use.

    The reference runs in float32 on the same inputs. An error is divided by the reference's
    largest value, or by 1 if that is larger.
    """
    random = torch.Generator().manual_seed(0)
    cases = {"lc_fuse": _fusions, "cross_entropy": _losses, "classes": _classes}[operation]
    worst = torch.zeros((), device=device)
    for found, expected in cases(random, dtype, device):
        found, expected = found.detach().float(), expected.detach().float()
        error = (found - expected).abs().amax() / expected.abs().amax().clamp_min(1)
        worst = torch.maximum(worst, error)  # passes nan on
    return float(worst)


def _fusions(random: torch.Generator, dtype: torch.dtype, device: torch.device) -> Pairs:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(device)

    regions = torch.tensor([[0.1, -0.2, 0.7, 0.5], [0.3, 0.4, 1.3, 1.0]], device=device)
    for size, factors, grid, width, region, relu in [
        ((11, 7), (1, 2, 4), (2, 3), 3, regions, True),
        ((8, 8), (1, 2, 4, 8), (1, 1), 64, None, True),
        ((5, 6), (2, 3), (5, 6), 130, regions, False),
        ((9, 1), (1,), (3, 1), 32, regions[:1], True),
    ]:
        maps = [draw(2, width, -(-size[0] // f), -(-size[1] // f)).to(dtype) for f in factors]
        branches = [m.requires_grad_() for m in maps]
        weight, bias = (draw(*s, width, *grid).requires_grad_() for s in ((len(factors),), ()))
        exact = [b.detach().float().requires_grad_() for b in branches]
        out = lc_fuse(branches, weight, bias, region, size, relu)
        expected = lc_fuse_reference(exact, weight, bias, region, size, relu)
        factor = draw(*out.shape).to(dtype)
        factor[expected.abs() < 0.05] = 0  # where rounding may decide what ReLU lets through
        yield out, expected
        grads = torch.autograd.grad(out, (*branches, weight, bias), factor)
        yield from zip(grads, torch.autograd.grad(expected, (*exact, weight, bias), factor.float()))


def _logits(
    random: torch.Generator, dtype: torch.dtype, device: torch.device, classes: int
) -> Iterator[tuple[Tensor, tuple[int, int], Tensor]]:
    """Logits of every stride, the image's size, and the upsampled logits in float32."""
    for stride in (1, 2, 4, 8, 16, 32):
        logits = torch.randn(2, classes, 2, 3, generator=random).to(device, dtype).requires_grad_()
        size = stride + stride // 2 + 1, 2 * stride + 1
        yield logits, size, upsample_logits(logits.float(), size)


def _losses(random: torch.Generator, dtype: torch.dtype, device: torch.device) -> Pairs:
    for logits, size, full in _logits(random, dtype, device, 5):
        target = torch.randint(0, 5, (2, *size), generator=random)
        target[torch.rand(target.shape, generator=random) < 0.2] = 255
        target = target.to(device)
        weighted = {"weight": torch.rand(5, generator=random).to(device) + 0.1}
        smoothed = {"label_smoothing": 0.1, "reduction": "none"}
        for kind, more in product((torch.uint8, torch.int64), (weighted, smoothed)):
            loss = dense.dense_cross_entropy(logits, target.to(kind), ignore_index=255, **more)
            expected = F.cross_entropy(full, target, ignore_index=255, **more)
            yield loss, expected
            ones = torch.ones_like(expected)
            found, wanted = (
                torch.autograd.grad(x, logits, ones, retain_graph=True)[0] for x in (loss, expected)
            )
            yield found, wanted


def _classes(random: torch.Generator, dtype: torch.dtype, device: torch.device) -> Pairs:
    for count in (5, 257):
        for logits, size, full in _logits(random, dtype, device, count):
            found, chances = dense.dense_scores(logits, size)
            yield chances, full.softmax(1).amax(1)
            # rounding may decide between equals, so values are compared and not classes
            for classes in (found, dense.dense_argmax(logits, size)):
                yield full.gather(1, classes[:, None].long())[:, 0], full.amax(1)


def _numbers(text: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(n) for n in re.findall(r"\d+", text)[:2])


if __name__ == "__main__":
    _main(*sys.argv[1:])
