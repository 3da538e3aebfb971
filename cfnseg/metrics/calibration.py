"""Calibration: 80 % of the pixels with confidence 0.8 should be right."""

from __future__ import annotations

import numpy as np

BINS = 15  # as in Guo et al.


def calibration_counts(
    confidence: np.ndarray, right: np.ndarray, counted: np.ndarray
) -> np.ndarray:
    """The counts of a reliability diagram; they add up over images.

    Args:
        confidence: (H, W) float32 in 0..1, the probability of the predicted class.
        right: (H, W) bool, prediction = truth.
        counted: (H, W) bool, False where the truth is ignored.

    Returns:
        (15, 3) float64 of bins of equal width: pixels, sum of their confidence, right pixels. A
        bin includes its lower end; the last bin includes both ends.

    Raises:
        ValueError: shapes differ, or a counted confidence is not in 0..1 (within 1e-4, for the
            rounding of a softmax).
    """
    if not confidence.shape == right.shape == counted.shape:
        shapes = f"{confidence.shape}, {right.shape} and {counted.shape}"
        raise ValueError(f"confidence, right and counted: expected one shape, got {shapes}")
    sure = confidence[counted]
    low, high = sure.min(initial=0), sure.max(initial=0)
    if not (low >= -1e-4 and high <= 1 + 1e-4):
        raise ValueError(f"confidence: expected 0..1, got {low} to {high}")
    place = np.clip(sure * BINS, 0, BINS - 1).astype(np.intp)
    columns = [np.bincount(place, weights, BINS) for weights in (None, sure, right[counted])]
    return np.stack(columns, 1).astype(np.float64)


def expected_calibration_error(counts: np.ndarray) -> float:
    """The bins' mean gap between confidence and accuracy, weighted by pixels.

    Args:
        counts: (15, 3) of `calibration_counts`, summed over images.

    Returns:
        0..1; nan if nothing was counted.

    Source: Guo et al., ICML 2017 (https://arxiv.org/abs/1706.04599), equation 5.
    """
    pixels = counts[:, 0].sum()
    return float(np.abs(counts[:, 2] - counts[:, 1]).sum() / pixels) if pixels else float("nan")
