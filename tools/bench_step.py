"""What samples and updates cost against the usual way: python tools/bench_step.py [--crop 512 1024]"""

import numpy as np
import tyro

from cfnseg.cli import run_tool


def bench_step(*, size: tuple[int, int] = (1024, 2048), crop: tuple[int, int] = (512, 1024), samples: int = 200,
               updates: int = 50) -> None:
    """Make training samples and update CFN's parameters, each in two ways, interleaved; print the times and their ratio.

    Args:
        size: height and width of the image.
        crop: height and width of the crop.
        samples: how many, with scales of 0.5 to 2 and colour jitter of 0.5.
        updates: how many.
    """
    from cfnseg.benchmark.step import time_samples, time_updates

    times = time_samples(size, crop, samples)
    line("a sample", ("resize, then crop", "cut, then resize"), times)
    for name in ("adamw", "sgd"):
        times, tensors = time_updates(name, updates)
        line(f"{name}, {tensors} tensors", ("default", "fused"), times)


def line(what: str, ways: tuple[str, str], times: np.ndarray) -> None:
    """Mean and median of each way in ms, and the median of the rounds' ratios."""
    parts = (f"{way} {t.mean():.1f} ms (median {np.median(t):.1f})" for way, t in zip(ways, times.T * 1000))
    print(f"{what}: {', '.join(parts)}, ratio {np.median(times[:, 1] / times[:, 0]):.2f}")


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(bench_step))
