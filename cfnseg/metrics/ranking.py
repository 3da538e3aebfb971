"""Scores of image heads and of classification: average precision, and top-k error."""

from __future__ import annotations

import numpy as np

from cfnseg.metrics.confusion import known_mean


def average_precision(scores: np.ndarray, present: np.ndarray) -> float:
    """Area under the precision-recall curve, as VOC has it since 2010.

    Precision is made monotone, and every step of recall counts.

    Args:
        scores: (images,) higher = more likely.
        present: (images,) bool truth.

    Returns:
        0..1; nan if the class is in no image. Equal scores count as one step.
    """
    if not present.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(present[order])
    last = np.r_[np.diff(scores[order]) != 0, True]  # the end of each run of equal scores
    precision = (hits / np.arange(1, len(order) + 1))[last]
    recall = hits[last] / hits[-1]
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(np.r_[0.0, recall]) * envelope))


def mean_average_precision(scores: np.ndarray, present: np.ndarray) -> tuple[float, np.ndarray]:
    """mAP over the classes that occur, and the (C,) average precisions.

    Args:
        scores: (images, C) higher = more likely.
        present: (images, C) bool truth.
    """
    each = np.array(
        [average_precision(scores[:, c], present[:, c]) for c in range(scores.shape[1])]
    )
    return known_mean(each), each


def top_errors(scores: np.ndarray, targets: np.ndarray, best: int = 5) -> tuple[float, float]:
    """Top-1 and top-``best`` error, 0..1.

    Args:
        scores: (images, C) higher = more likely.
        targets: (images,) true class.

    Returns:
        Shares of images whose class is not the first, and not among the first ``best`` (or C).
        Ties count against the image, so a constant predictor earns nothing.
    """
    if not len(targets):
        return float("nan"), float("nan")
    own = np.take_along_axis(scores, np.asarray(targets)[:, None], 1)
    rank = (~(scores < own)).sum(1)  # 1 = alone at the top; a nan ranks last
    return float((rank > 1).mean()), float((rank > min(best, scores.shape[1])).mean())
