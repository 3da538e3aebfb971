"""Whether a confidence means what it says: of the pixels that are 80 % sure, 80 % should be right."""

from __future__ import annotations

import numpy as np

BINS = 15  # as in Guo et al.


def calibration_counts(confidence: np.ndarray, right: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """What a reliability diagram is drawn from; add it up over images.

    Args:
        confidence: (H, W) float32 in 0..1, the probability of the predicted class.
        right: (H, W) bool, prediction = truth.
        counted: (H, W) bool, False where the truth is ignored.

    Returns:
        (15, 3) float64: pixels, sum of their confidence, and how many of them are right, in bins of equal width. Each has
        its lower end and not its upper one, the last has both.

    Raises:
        ValueError: shapes differ, or a confidence that counts is not in 0..1 (1e-4 is left for a softmax's rounding).
    """
    if not confidence.shape == right.shape == counted.shape:
        raise ValueError(f"confidence, right and counted: expected one shape, got {confidence.shape}, {right.shape} and {counted.shape}")
    sure = confidence[counted]
    low, high = sure.min(initial=0), sure.max(initial=0)
    if not (low >= -1e-4 and high <= 1 + 1e-4):
        raise ValueError(f"confidence: expected 0..1, got {low} to {high}")
    place = np.clip(sure * BINS, 0, BINS - 1).astype(np.intp)
    return np.stack([np.bincount(place, weights, BINS) for weights in (None, sure, right[counted])], 1).astype(np.float64)


def expected_calibration_error(counts: np.ndarray) -> float:
    """The mean gap between confidence and accuracy of the bins, weighted by their pixels.

    Args:
        counts: (15, 3) of `calibration_counts`, summed over images.

    Returns:
        0..1; nan if nothing was counted.

    Source: Guo et al., ICML 2017 (https://arxiv.org/abs/1706.04599), equation 5.
    """
    pixels = counts[:, 0].sum()
    return float(np.abs(counts[:, 2] - counts[:, 1]).sum() / pixels) if pixels else float("nan")
