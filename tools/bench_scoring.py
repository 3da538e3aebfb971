"""How long scoring masks takes beside decoding their PNGs: python tools/bench_scoring.py [--maps 500] [--details]"""

import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from cfnseg.cli import run_tool


def bench_scoring(*, maps: int = 500, height: int = 1024, width: int = 2048, workers: int = 2, rounds: int = 3,
                  details: bool = False) -> None:
    """Score label maps of Cityscapes' 19 classes from files, and decode the same files, in turn; print the ratio of the times.

    Args:
        maps: pairs of truth and prediction; 20 pairs of files stand for them in turn, so that they need no 500 files.
        height, width: of a map in pixels.
        workers: processes, for scoring and decoding alike.
        rounds: the median of so many ratios is taken.
        details: count boundaries, trimaps and sizes too.
    """
    from cfnseg.benchmark.scoring import drawn_maps, measure

    with tempfile.TemporaryDirectory() as folder:
        pairs = drawn_maps(Path(folder), 20, height, width)
        times = [measure(pairs, maps, workers, details, time.perf_counter) for _ in range(rounds)]
    ratio = np.median([score / decode for decode, score in times])
    decode, score = np.median(times, 0) / maps * 1000
    print(f"{maps} maps of {height} x {width}, {workers} processes: decoding both PNGs {decode:.1f} ms a map, scoring {score:.1f} ms "
          f"(reading included), ratio {ratio:.2f}")


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(bench_scoring))
