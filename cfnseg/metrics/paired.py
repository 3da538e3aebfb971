"""Comparing two systems on the same images: the paired bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cfnseg.metrics.confusion import iou_of

BLOCK = 500  # resamples computed at once


def paired_difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], resamples: int = 10_000,
                      seed: int = 0) -> tuple[float, float, float]:
    """How much better ``ours`` scores than ``theirs``, with a 95 % percentile interval over images drawn with replacement.

    Both are scored on the same draws, so what makes an image hard for everyone cancels (Efron and Tibshirani 1993, ch. 16).
    The score of a draw is the mean over a system's runs; how runs differ by seed is not in the interval.

    Args:
        ours, theirs: one array per run, of the same images in the same order: (images, 3, C) counts, scored by mIoU (see
            `cfnseg.metrics.confusion.counts_of`), or (images,) numbers, scored by their mean.
        resamples: bootstrap samples.
        seed: of the draws.

    Returns:
        Difference of the scores, and the interval's low and high end.

    Raises:
        ValueError: no run, no image, or arrays of different images.
    """
    runs = [np.asarray(run, np.float64) for run in (*ours, *theirs)]
    if not len(ours) or not len(theirs) or any(run.shape != runs[0].shape for run in runs) or not len(runs[0]):
        raise ValueError(f"ours and theirs: expected runs over the same images, got shapes {[run.shape for run in runs]}")
    images = len(runs[0])
    rng = np.random.default_rng(seed)

    def difference(draws: np.ndarray) -> np.ndarray:
        scores = np.stack([_scores(draws, run) for run in runs])
        return scores[: len(ours)].mean(0) - scores[len(ours) :].mean(0)

    blocks = []
    for start in range(0, resamples, BLOCK):  # all draws at once would be gigabytes for 50,000 images
        draws = rng.multinomial(images, np.full(images, 1 / images), size=min(BLOCK, resamples - start))
        blocks.append(difference(draws.astype(np.float64)))
    low, high = np.percentile(np.concatenate(blocks), [2.5, 97.5])
    return float(difference(np.ones((1, images)))[0]), float(low), float(high)


def _scores(draws: np.ndarray, run: np.ndarray) -> np.ndarray:
    """The score of each row of ``draws``, which says how often each image is in it."""
    if run.ndim == 1:
        return draws @ run / draws.sum(1)
    iou = iou_of((draws @ run.reshape(len(run), -1)).reshape(len(draws), *run.shape[1:]))
    known = ~np.isnan(iou)
    return np.where(known, iou, 0).sum(1) / np.maximum(known.sum(1), 1)
