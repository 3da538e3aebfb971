"""Time to score label maps beside the time to decode their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from cfnseg.data.dataset import FileDataset
from cfnseg.data.files import read_mask
from cfnseg.data.formats.cityscapes import LABELS
from cfnseg.data.loader import parallel
from cfnseg.evaluation.mask_files import evaluate_masks

Pairs = list[tuple[Path, Path]]


def drawn_maps(folder: Path, count: int, height: int, width: int) -> Pairs:
    """Truth and predicted label-id PNGs of smooth regions in Cityscapes' 19 classes; a tenth of each truth is ignored."""
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(count):
        fields = [cv2.resize(rng.standard_normal((16, 32, 19)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)]
        fields.append(fields[0] + 0.3 * cv2.resize(rng.standard_normal((64, 128, 19)).astype(np.float32), (width, height)))
        truth, prediction = (field.argmax(2).astype(np.uint8) for field in fields)
        truth[: height // 10] = 255
        pairs.append((folder / f"{i}.png", folder / f"{i}_mask.png"))
        for path, mask in zip(pairs[-1], (truth, prediction)):
            LABELS.write(path, mask)
    return pairs


def _decode(pair: tuple[Path, Path]) -> int:
    return sum(int(read_mask(path)[0, 0]) for path in pair)


def measure(pairs: Pairs, maps: int, workers: int, details: bool, clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds to decode ``maps`` pairs of files, and to decode and score them; ``pairs`` are used in turn."""
    many = [pairs[i % len(pairs)] for i in range(maps)]
    start = clock()
    for _ in parallel(_decode, many, workers):
        pass
    middle = clock()
    truth = FileDataset([(path, path) for path, _ in many], LABELS)
    evaluate_masks(truth, [path for _, path in many], workers, details)
    return middle - start, clock() - middle
