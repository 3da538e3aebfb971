"""Comparing two systems on the same images: the paired bootstrap.

Both are scored on the same draws of images, so what makes an image hard for everyone cancels (Efron and Tibshirani 1993,
ch. 16). The score of a draw is the mean over a system's runs; how runs differ by seed is not in an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cfnseg.metrics.confusion import iou_of
from cfnseg.metrics.uncertainty import mean_iou, percentiles, resampled


def paired_difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], resamples: int = 10_000,
                      seed: int = 0) -> tuple[float, float, float, float]:
    """How much better ``ours`` scores than ``theirs``, with a 95 % percentile interval over images drawn with replacement.

    Args:
        ours, theirs: one array per run, of the same images in the same order: (images, 3, C) counts, scored by mIoU (see
            `cfnseg.metrics.confusion.counts_of`), or (images,) numbers, scored by their mean.
        resamples: bootstrap samples.
        seed: of the draws.

    Returns:
        Difference of the scores, the interval's low and high end, and the two-sided p-value of no difference: the share of
        draws whose difference is 0 or has the rarer sign, each end with one draw more, doubled, at most 1; so it is never
        below 2 / (resamples + 1). All nan if nothing was counted.

    Raises:
        ValueError: no run, no image, or arrays of different images.

    Source: the p-value is that of the percentile interval that just touches 0 (Efron and Tibshirani 1993, ch. 15.4), with
    the one added as in Davison and Hinkley 1997, ch. 4.2.
    """
    def score(sums: np.ndarray) -> np.ndarray:
        return mean_iou(iou_of(sums)) if sums.ndim == 4 else sums / len(ours[0])

    found = _differences(ours, theirs, score, resamples, seed)
    known = found[1:][~np.isnan(found[1:])]
    p = min(1.0, 2 * (1 + min((known <= 0).sum(), (known >= 0).sum())) / (1 + len(known))) if len(known) else np.nan
    low, high = percentiles(known)
    return float(found[0]), float(low), float(high), float(p)


def paired_classes(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], resamples: int = 10_000, seed: int = 0) -> np.ndarray:
    """The same for the IoU of each class.

    Args:
        ours, theirs: one (images, 3, C) array of counts per run, as for `paired_difference`.
        resamples: bootstrap samples.
        seed: of the draws, which are those of `paired_difference`.

    Returns:
        (C, 3) float64: difference of IoU and its interval's low and high end; nan for a class that some run has no IoU for.

    Raises:
        ValueError: no run, no image, or arrays of different images.
    """
    found = _differences(ours, theirs, iou_of, resamples, seed)
    ends = percentiles(found[1:])
    ends[np.isnan(found[0])] = np.nan
    return np.column_stack([found[0], ends])


def _differences(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], score: Callable[[np.ndarray], np.ndarray], resamples: int,
                 seed: int) -> np.ndarray:
    """(1 + resamples, ...) ours less theirs: of the images as they are, then of each draw."""
    runs = [np.asarray(run) for run in (*ours, *theirs)]
    if not len(ours) or not len(theirs) or any(run.shape != runs[0].shape for run in runs) or not len(runs[0]):
        raise ValueError(f"ours and theirs: expected runs over the same images, got shapes {[run.shape for run in runs]}")
    values = np.stack(runs, 1)
    scores = np.concatenate([score(values.sum(0)[None].astype(np.float64)), *(score(sums) for sums in resampled(values, resamples, seed))])
    return scores[:, : len(ours)].mean(1) - scores[:, len(ours) :].mean(1)
