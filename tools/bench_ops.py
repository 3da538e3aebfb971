"""Fusion, loss and class maps against the composition of torch operations: python tools/bench_ops.py [--ops lc_fuse ...]"""

from pathlib import Path
from typing import Literal

import tyro

from cfnseg.cli import run_tool


def bench_ops(*, ops: tuple[Literal["lc_fuse", "cross_entropy", "argmax"], ...] = ("lc_fuse", "cross_entropy", "argmax"),
              batches: tuple[int, ...] = (8,), scale: tuple[float, ...] = (1.0,),
              dtype: Literal["float32", "bfloat16", "float16"] = "float32", compile: bool = False, rounds: int = 9,
              out: Path = Path("runs/bench_ops")) -> None:
    """Print one table; write ops.md and ops.png. On a GPU where there is one, else on the CPU.

    Args:
        ops: what is measured.
        batches: images of lc_fuse to sweep; the dense operations take a quarter of them, at least 1.
        scale: factors on the sizes to sweep (1: 128x128 maps; masks of 512x1024 with 19 classes and 512x512 with 150).
        dtype: of branches and logits.
        compile: measure torch.compile of the eager composition as well.
        rounds: how often each time is taken, in turns.
        out: where the files go.
    """
    import torch

    from cfnseg.benchmark.ops import cases, measure
    from cfnseg.benchmark.ops_table import write_results

    device, kind = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, dtype)
    rows = [row for case in cases(ops, batches, scale) for row in measure(case, device, kind, rounds, compile)]
    print(write_results(rows, device, kind, out))


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(bench_ops))
