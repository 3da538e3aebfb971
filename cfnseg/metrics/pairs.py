"""Counting pixels by two ids at once, which every score of label maps comes down to."""

from __future__ import annotations

import cv2
import numpy as np

STRIP = 1 << 24  # pixels counted at once: cv2 returns counts as float32, which is exact up to here


def pair_counts(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Count pixels by (first, second).

    Args:
        first, second: uint8 of the same shape.

    Returns:
        (256, 256) int64, rows = ``first``. As np.bincount of 256 * first + second, in about half of its time.
    """
    pair = first.reshape(1, -1), second.reshape(1, -1)
    counts = np.zeros((256, 256), np.int64)
    for start in range(0, first.size, STRIP):
        strip = [ids[:, start : start + STRIP] for ids in pair]
        counts += cv2.calcHist(strip, [0, 1], None, [256, 256], [0, 256, 0, 256]).astype(np.int64)
    return counts
