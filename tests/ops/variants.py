"""Every variant of the Triton kernels that cfnseg.ops can launch, compiled without a GPU.

Run as python -m tests.ops.variants. The public operations run on small CPU tensors and a recorder
replaces Triton's launch, so the variants follow from the launching code. Triton then specialises
and compiles each (``warmup``) for a named GPU.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import triton
from pytest import MonkeyPatch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from cfnseg.ops import dense_argmax, dense_cross_entropy, dense_scores, dispatch, lc_fuse

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
TARGETS = (80, 90, 100)
BRANCHES = range(1, 6)  # an encoder has five stages at most


class Variant:
    """A kernel with the arguments of one launch.

    Attributes:
        factors: constants and dtypes, which decide the code; "special" holds the other
            specialisation (divisible by 16, equal to 1).
    """

    def __init__(self, kernel, args: tuple, constants: dict) -> None:
        self.kernel, self.args, self.constants = kernel, args, constants
        names = kernel.arg_names
        dtypes = {name: str(arg.dtype) for name, arg in zip(names, args) if isinstance(arg, Tensor)}
        kept = [special(arg) for arg, p in zip(args, kernel.params) if not p.do_not_specialize]
        self.factors = {"kernel": kernel.__name__, **dtypes, **constants, "special": str(kept)}

    def __str__(self) -> str:
        shown = {
            k: str(v).removeprefix("torch.")
            for k, v in self.factors.items()
            if k not in ("kernel", "special")
        }
        return f"{self.factors['kernel']}({', '.join(f'{k}={v}' for k, v in shown.items())})"


def special(arg) -> object:
    """Triton's specialisation of an argument beyond its type: "1", "d" (divisible by 16) or "-"."""
    if isinstance(arg, tuple):
        return "".join(sorted({special(one) for one in arg}))
    if isinstance(arg, Tensor):
        return "d" if arg.data_ptr() % 16 == 0 else "-"
    if isinstance(arg, float):
        return "f"
    wide = "" if -(2**31) <= arg < 2**31 else "w"
    return "1" if arg == 1 else wide + ("d" if arg % 16 == 0 else "-")


def odd(values: Tensor) -> Tensor:
    """A copy at an address that is no multiple of 16."""
    order = sorted(range(values.ndim), key=values.stride, reverse=True)
    memory = torch.empty(values.numel() + 1, dtype=values.dtype)[1:].view(
        [values.shape[i] for i in order]
    )
    return memory.permute([order.index(i) for i in range(values.ndim)]).copy_(values.detach())


def record() -> list[Variant]:
    """All variants, each once."""
    found: dict[str, Variant] = {}

    def recorder(kernel, *args, grid, warmup, **constants) -> None:
        variant = Variant(kernel, args, constants)
        found.setdefault(json.dumps(variant.factors, default=str), variant)

    with MonkeyPatch.context() as patch:
        patch.setattr(JITFunction, "run", recorder)
        patch.setattr(dispatch, "trusted", True, raising=False)
        patch.setenv("CFNSEG_OPS", "triton")
        for work in itertools.chain(fusions(), losses(), classes()):
            work()
    return list(found.values())


def fusions() -> Iterator:
    """Fusions of even and odd maps, and of sides of 1."""
    shapes = [
        ((32, 32), True, 128, (16, 16), True),
        ((32, 32), True, 64, (1, 1), True),
        ((17, 13), True, 150, (6, 8), False),
        ((32, 32), False, 32, (6, 8), True),
        ((1, 1), True, 1, (1, 1), False),
        ((33, 31), False, 100, (3, 1), False),
        ((7, 33), False, 3, (2, 3), True),
        ((48, 64), False, 64, (1, 1), True),
        ((15, 20), True, 48, (6, 8), True),
    ]
    for (size, first, k, grid, aligned), s, dtype, relu, own in itertools.product(
        shapes, BRANCHES, FLOATS, (True, False), (True, False)
    ):

        def work(
            size=size,
            first=first,
            k=k,
            grid=grid,
            aligned=aligned,
            s=s,
            dtype=dtype,
            relu=relu,
            own=own,
        ) -> None:
            maps = [
                torch.zeros(2, k, *(-(-n >> i + (not first)) or 1 for n in size), dtype=dtype)
                for i in range(s)
            ]
            maps = [m.contiguous(memory_format=torch.channels_last) for m in maps]
            maps = [(m if aligned else odd(m)).requires_grad_() for m in maps]
            weight, bias = (
                torch.zeros(s, k, *grid, requires_grad=True),
                torch.zeros(k, *grid, requires_grad=True),
            )
            region = torch.tensor([[0.1, 0.1, 0.8, 0.8]] * 2) if own else None
            out = lc_fuse(maps, weight, bias, region, size, relu)
            grad = torch.zeros_like(out)
            out.backward(grad if aligned else odd(grad))

        yield work


def dense() -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Logits and the image's size."""
    shapes = [
        ((16, 16), 16),
        ((5, 3), 19),
        ((1, 1), 2),
        ((16, 32), 160),
        ((7, 16), 1),
        ((3, 5), 300),
    ]
    for (cells, count), stride, dtype, last in itertools.product(
        shapes, (1, 2, 4, 8, 16, 32), FLOATS, (True, False)
    ):
        logits = torch.zeros(2, count, *cells, dtype=dtype)
        if last:
            logits = (
                odd(logits.contiguous(memory_format=torch.channels_last))
                if count == 19
                else logits.contiguous(memory_format=torch.channels_last)
            )
        yield logits, tuple(n * stride for n in cells)


def losses() -> Iterator:
    """Every form of the loss of `dense` logits."""
    for (logits, size), kind, reduction, wanted in itertools.product(
        dense(), (torch.uint8, torch.int32), ("mean", "none"), (True, False)
    ):

        def work(logits=logits, size=size, kind=kind, reduction=reduction, wanted=wanted) -> None:
            values = logits.detach().requires_grad_(wanted)
            loss = dense_cross_entropy(
                values, torch.zeros(2, *size, dtype=kind), reduction=reduction
            )
            if wanted:
                loss.sum().backward()

        yield work


def classes() -> Iterator:
    """Class maps and scores of `dense` logits."""
    for logits, size in dense():
        yield lambda logits=logits, size=size: (
            dense_argmax(logits, size),
            dense_scores(logits, size),
        )


def covering(variants: list[Variant]) -> list[tuple[int, Variant]]:
    """A few (target, variant) that cover each kernel.

    They hold every specialisation, and every pair of a flag, dtype or target, and of a flag and a
    size.
    """

    def needs(target: int, variant: Variant) -> set[tuple]:
        fixed = [(k, v) for k, v in variant.factors.items() if k not in ("kernel", "special")] + [
            ("target", target)
        ]
        size = [type(value) is int and key != "target" for key, value in fixed]
        pairs = [
            (a, b)
            for (a, i), (b, j) in itertools.combinations(zip(fixed, size), 2)
            if not (i or j) or isinstance((b if i else a)[1], bool)
        ]
        name = variant.factors["kernel"]
        return {(name, *pair) for pair in pairs} | {
            (name, one) for one in (*fixed, ("special", variant.factors["special"]))
        }

    left = {(target, i): needs(target, v) for i, v in enumerate(variants) for target in TARGETS}
    missing, chosen = set().union(*left.values()), []
    while missing:
        best = max(left, key=lambda key: len(left[key] & missing))
        missing -= left.pop(best)
        chosen.append((best[0], variants[best[1]]))
    return chosen


class _Driver:
    """A driver of a named, absent GPU."""

    def __init__(self, target: int) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.target, 32)

    def get_current_device(self) -> int:
        return self.target

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_for(target: int, variant: Variant) -> dict[str, int]:
    """Compile to machine code; registers a thread, and bytes spilled."""
    triton.runtime.driver.set_active(_Driver(target))
    made = variant.kernel.warmup(*variant.args, grid=(1,), **variant.constants)
    folder = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        text = subprocess.run(
            [folder / "cuobjdump", "-res-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return {
        "registers": int(re.search(r"REG:(\d+)", text)[1]),
        "spills": int(re.search(r"LOCAL:(\d+)", text)[1]),
    }


def main(every: bool, part: int, parts: int, targets: list[int]) -> None:
    """Compile each ``parts``-th variant from ``part`` on; a JSON line before and after each."""
    variants = record()
    jobs = [(t, v) for v in variants for t in TARGETS] if every else covering(variants)
    jobs = [job for job in jobs if job[0] in targets]
    more = {"all": len(jobs), "of": len(variants) * len(targets), "triton": triton.__version__}
    for target, variant in jobs[part::parts]:
        print(json.dumps({"begun": f"sm_{target} {variant}"}), flush=True)
        print(json.dumps(compile_for(target, variant) | more), flush=True)


if __name__ == "__main__":
    main(
        sys.argv[1] == "every",
        int(sys.argv[2]),
        int(sys.argv[3]),
        [int(t) for t in sys.argv[4].split(",")],
    )
