"""Visitors at once, each with an image of its own: is every answer that of its image?

python -m tests.demo.visitors WEIGHTS --visitors 50 --seconds 120
"""

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from cfnseg.data.decode import decode_image
from cfnseg.inference.pixel_parts import pixel_parts
from cfnseg.inference.predictor import Predictor
from cfnseg.models.weights import load
from tests.demo.serving import request, scene


@dataclass
class Visits:
    """What visitors saw.

    Attributes:
        seconds: from request to answer, of each answer.
        pixels: answers on the branches at a pixel, among them.
        busy: requests that were asked to come again.
        wrong: answers that were not those of the image, or errors.
    """

    seconds: list[float] = field(default_factory=list)
    pixels: int = 0
    busy: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        half, most = np.quantile(self.seconds, (0.5, 0.95)) if self.seconds else (0, 0)
        return (
            f"{len(self.seconds)} answers, {self.pixels} of them on a pixel, {len(self.wrong)} "
            f"wrong; {self.busy} times busy; {half:.2f} s in the middle, {most:.2f} s for 95 %"
        )


def visit(port: int, weights: Path, visitors: int, seconds: float) -> Visits:
    """Send images of many sizes to the demo at a port of loopback, and compare every answer.

    Each visitor asks for the mask of its image, or for one of its pixels, and again at once.
    """
    predict, net = Predictor(weights, "cpu"), load(weights).model
    seen, end = Visits(), threading.Event()

    def prepared(number: int) -> tuple[bytes, bytes, int, int, np.ndarray]:
        data = scene(number, (64 + 8 * (number % 5), 80 + 16 * (number % 7)))
        image = decode_image(data, "scene")
        y, x = (number * 31 % side for side in image.shape[:2])
        parts = pixel_parts(net, torch.from_numpy(image).permute(2, 0, 1), x, y).parts
        return data, predict(image).mask.tobytes(), x, y, parts

    def come(data: bytes, mask: bytes, x: int, y: int, parts: np.ndarray) -> None:
        asked = 0
        while not end.is_set():
            asked, start = asked + 1, time.perf_counter()
            pixel = asked % 3 == 0
            path = f"/api/pixel?x={x}&y={y}" if pixel else "/api/segment"
            got = request(port, "POST", path, data, timeout=300)
            if got.status == 503:
                seen.busy += 1
                end.wait(float(got.headers["retry-after"]) * np.random.uniform(0.5, 1.5))
                continue
            right = got.status == 200 and (
                np.allclose(got.json["parts"], parts, rtol=1e-3, atol=1e-3)
                if pixel
                else got.parts["ids"] == mask
            )
            seen.seconds.append(time.perf_counter() - start)
            seen.pixels += pixel
            if not right:
                seen.wrong.append(f"{path}: {got.status} {str(got.json)[:200]}")

    threads = [threading.Thread(target=come, args=prepared(k)) for k in range(visitors)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    end.set()
    for thread in threads:
        thread.join()
    return seen


@contextlib.contextmanager
def running(weights: Path):
    """The port of ``cfnseg demo WEIGHTS`` in a process of its own; it ends as by Ctrl-C."""
    command = [sys.executable, "-m", "cfnseg", "demo", weights, "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            lines = [process.stdout.readline() for _ in range(3)]
            yield int(re.search(r"demo: http://127.0.0.1:(\d+)\n", "".join(lines))[1])
        finally:
            process.send_signal(signal.SIGINT)
            left = process.communicate(timeout=20)
    assert (process.returncode, *left) == (130, "", "stopped by SIGINT\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("weights", type=Path)
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    words = parser.parse_args()
    torch.set_num_threads(1)
    with running(words.weights) as port:
        visits = visit(port, words.weights, words.visitors, words.seconds)
    print(visits, *visits.wrong[:5], sep="\n")
    sys.exit(bool(visits.wrong))
