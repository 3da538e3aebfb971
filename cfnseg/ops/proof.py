"""Whether a Triton kernel may be used here: shown once by a child process, then remembered on disk.

The child runs the operation forward and backward on small inputs and compares it with the reference. A
kernel that aborts ends the child only. The record's name is a hash of what the verdict depends on: the
sources, the versions of Triton and torch, and the GPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cfnseg.ops import dense, dispatch
from cfnseg.ops.dense.reference import upsample_logits
from cfnseg.ops.lc_fuse import lc_fuse, lc_fuse_reference

OPERATIONS = ("lc_fuse", "cross_entropy", "classes")
BOUNDS = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}  # of errors relative to the largest value
SECONDS = 300  # a child compiles some dozen kernels
HERE = Path(__file__).parent
_verdicts: dict[tuple, str] = {}
_said: set[str] = set()


def holds(operation: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether Triton's kernels of an operation are known to be right; False for float64, which they lack.

    The first question of a machine takes about a minute. If the answer is no, rank 0 says why, once.
    """
    if dtype not in BOUNDS:
        return False
    key = operation, dtype, device
    if key not in _verdicts:
        _verdicts[key] = _verdict(operation, dtype, device)
    reason = _verdicts[key]
    if reason and reason not in _said and os.environ.get("RANK", "0") == "0":
        _said.add(reason)
        dispatch.say(reason)
    return not reason


def prove(operation: str, dtype: torch.dtype, device: torch.device) -> str:
    """Let a child process examine the kernels now and remember its verdict: "" if they are right, else why not."""
    reason = missing(device)
    if reason:
        return reason
    name, key = f"{operation} in {str(dtype).removeprefix('torch.')}", _key(operation, dtype, device)
    found, lasting = _examine(operation, dtype, device)
    reason = found and f"Triton's {name} is not used on {key['device']}: {found}"
    if lasting:
        with suppress(OSError):
            _write(_path(key), {"key": key, "reason": reason})
    return reason


def missing(device: torch.device) -> str:
    """What Triton lacks on this device, "" if nothing."""
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
    """Where verdicts are remembered: the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cfnseg" / "proofs"


def _verdict(operation: str, dtype: torch.dtype, device: torch.device) -> str:
    reason = missing(device)
    if reason:
        return reason
    path = _path(_key(operation, dtype, device))
    known = _read(path)
    if known is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(path.with_suffix(".lock")):
                known = _read(path)  # another process may have been first
                if known is None:
                    known = prove(operation, dtype, device)
        except OSError as error:
            return f"Triton is not used: its verdicts cannot be kept in {path.parent} ({error.strerror})"
    return known


def _key(operation: str, dtype: torch.dtype, device: torch.device) -> dict[str, str]:
    sources = [HERE / name for name in ("launch.py", "linear.py", "proof.py", "dense/kernels.py", "dense/reference.py",
                                        "lc_fuse/kernels.py", "lc_fuse/reference.py")]
    cuda = device.type == "cuda"
    return {"operation": operation, "dtype": str(dtype), "torch": torch.__version__, "triton": version("triton"),
            "device": torch.cuda.get_device_name(device) if cuda else "the interpreter",
            "capability": str(torch.cuda.get_device_capability(device) if cuda else ""),
            "sources": hashlib.sha256(b"\0".join(s.read_bytes() for s in sources)).hexdigest()}


def _path(key: dict[str, str]) -> Path:
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return folder() / f"{name}.json"


def _read(path: Path) -> str | None:
    """The verdict in a file; None if it has none."""
    try:
        reason = json.loads(path.read_text())["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return reason if isinstance(reason, str) else None


def _write(path: Path, record: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with open(handle, "w") as file:  # noqa: PTH123
        json.dump(record, file, indent=1)
    os.replace(name, path)  # noqa: PTH105


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that death releases, or go on without it after a while: two proofs at once only cost time."""
    import fcntl

    with path.open("w") as file:
        end = time.monotonic() + SECONDS + 60
        while time.monotonic() < end:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.2)
            except OSError:  # a file system without locks
                break
        yield


def _examine(operation: str, dtype: torch.dtype, device: torch.device) -> tuple[str, bool]:
    """What is wrong ("" for nothing), and whether the next process would find the same."""
    command = [sys.executable, "-m", "cfnseg.ops.proof", operation, str(dtype).removeprefix("torch."), str(device)]
    paths = os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]))
    try:
        child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    except OSError as error:
        return f"its test could not start ({error.strerror})", False
    try:
        lines = child.communicate(timeout=SECONDS)[0].splitlines()
    except subprocess.TimeoutExpired:
        return f"its test did not end in {SECONDS} s", False
    finally:
        if child.poll() is None:  # the compilers that it started too
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.returncode:
        ended = signal.Signals(-child.returncode).name if child.returncode < 0 else f"exit code {child.returncode}"
        return f"its test died ({ended})", True
    if not lines:
        return "its test ended without a verdict", True
    found = json.loads(lines[-1])
    return found["reason"], found["lasting"]


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
    print(json.dumps({"reason": reason, "lasting": lasting}))


def largest_error(operation: str, dtype: torch.dtype, device: torch.device) -> float:
    """Of values and gradients of the version in use, against the reference in float32 on the same inputs.

    An error is divided by the largest of the reference's values, or by 1 if that is larger.
    """
    random = torch.Generator().manual_seed(0)
    cases = {"lc_fuse": _fusions, "cross_entropy": _losses, "classes": _classes}[operation](random, dtype, device)
    worst = torch.zeros((), device=device)
    for found, expected in cases:
        found, expected = found.detach().float(), expected.detach().float()
        error = (found - expected).abs().amax() / expected.abs().amax().clamp_min(1)
        worst = torch.maximum(worst, error)  # passes nan on
    return float(worst)


def _fusions(random: torch.Generator, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    regions = torch.tensor([[0.1, -0.2, 0.7, 0.5], [0.3, 0.4, 1.3, 1.0]], device=device)
    for size, factors, grid, width, region, relu in [
            ((11, 7), (1, 2, 4), (2, 3), 3, regions, True), ((8, 8), (1, 2, 4, 8), (1, 1), 64, None, True),
            ((5, 6), (2, 3), (5, 6), 130, regions, False), ((9, 1), (1,), (3, 1), 32, regions[:1], True)]:
        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random).to(device)

        branches = [draw(2, width, -(-size[0] // f), -(-size[1] // f)).to(dtype).requires_grad_() for f in factors]
        weight, bias = (draw(*shape, width, *grid).requires_grad_() for shape in ((len(factors),), ()))
        exact = [b.detach().float().requires_grad_() for b in branches]
        out = lc_fuse(branches, weight, bias, region, size, relu)
        expected = lc_fuse_reference(exact, weight, bias, region, size, relu)
        factor = draw(*out.shape).to(dtype)
        factor[expected.abs() < 0.05] = 0  # where rounding may decide what ReLU lets through
        yield out, expected
        yield from zip(torch.autograd.grad(out, (*branches, weight, bias), factor),
                       torch.autograd.grad(expected, (*exact, weight, bias), factor.float()))


def _logits(random: torch.Generator, dtype: torch.dtype, device: torch.device,
            classes: int) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    for stride in (1, 2, 4, 8, 16, 32):
        logits = torch.randn(2, classes, 2, 3, generator=random).to(device, dtype)
        yield logits, (stride + stride // 2 + 1, 2 * stride + 1)


def _losses(random: torch.Generator, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for logits, size in _logits(random, dtype, device, 5):
        target = torch.randint(0, 5, (2, *size), generator=random)
        target[torch.rand(target.shape, generator=random) < 0.2] = 255
        target = target.to(device)
        weight = torch.rand(5, generator=random).to(device) + 0.1
        logits.requires_grad_()
        full = upsample_logits(logits.float(), size)
        for kind, more in product((torch.uint8, torch.int64), ({"weight": weight}, {"label_smoothing": 0.1, "reduction": "none"})):
            loss = dense.dense_cross_entropy(logits, target.to(kind), ignore_index=255, **more)
            expected = F.cross_entropy(full, target, ignore_index=255, **more)
            yield loss, expected
            factor = torch.ones_like(expected)
            yield tuple(torch.autograd.grad(x, logits, factor, retain_graph=True)[0] for x in (loss, expected))


def _classes(random: torch.Generator, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for count in (5, 257):
        for logits, size in _logits(random, dtype, device, count):
            full = upsample_logits(logits.float(), size)
            found, chances = dense.dense_scores(logits, size)
            yield chances, full.softmax(1).amax(1)
            for classes in (found, dense.dense_argmax(logits, size)):  # rounding may decide between two that are equal
                yield full.gather(1, classes[:, None].long())[:, 0], full.amax(1)


def _numbers(text: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(n) for n in re.findall(r"\d+", text)[:2])


if __name__ == "__main__":
    _main(*sys.argv[1:])
