"""How far a score could move with other images: the bootstrap over images."""

from __future__ import annotations

import numpy as np

from cfnseg.metrics.confusion import iou_of


def bootstrap_miou(counts: np.ndarray, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """A 95 % percentile interval of mIoU over images drawn with replacement (Efron 1979).

    Args:
        counts: (images, 3, C) int64 true positives, truth and predicted pixels, see `cfnseg.metrics.confusion.counts_of`.
        resamples: bootstrap samples.
        seed: of the draws; the same counts give the same interval.

    Returns:
        (low, high) in 0..1; nan for no images. Images of one video are not independent: the interval is then too narrow.
    """
    images = len(counts)
    if not images:
        return float("nan"), float("nan")
    # how often each image is drawn, times its counts: one matrix product in place of resampling
    draws = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    sums = (draws @ counts.reshape(images, -1).astype(np.float64)).reshape(resamples, *counts.shape[1:])
    iou = iou_of(sums)
    known = ~np.isnan(iou)
    miou = np.where(known, iou, 0).sum(1) / np.maximum(known.sum(1), 1)
    low, high = np.percentile(miou, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_mean(values: np.ndarray, resamples: int = 10000, seed: int = 0) -> tuple[float, float]:
    """A 95 % percentile interval of the mean of one number per image, over images drawn with replacement.

    Args:
        values: (images,) with few distinct ones, such as 0 and 1: a resample is drawn as how often it has each of them, which
            for 0 and 1 is a binomial draw. Memory is resamples x distinct values x 8 bytes.
        resamples: bootstrap samples.
        seed: of the draws; the same values give the same interval.

    Returns:
        (low, high) in the values' unit; nan for no images. Values that are all equal have an interval of no width.
    """
    images = len(values)
    if not images:
        return float("nan"), float("nan")
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    draws = np.random.default_rng(seed).multinomial(images, counts / images, size=resamples)
    low, high = np.percentile(draws @ distinct / images, [2.5, 97.5])
    return float(low), float(high)
