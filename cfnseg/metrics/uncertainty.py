"""How far a score could move with other images: the bootstrap over images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cfnseg.metrics.confusion import iou_of

DRAWN = 1 << 20  # images drawn at once, which bounds the memory to some 25 MB


@dataclass(frozen=True)
class Intervals:
    """95 % percentile intervals, low and high end in 0..1: ``miou`` (2,), ``classes`` (C, 2); nan where nothing was counted."""

    miou: np.ndarray
    classes: np.ndarray


def bootstrap(counts: np.ndarray, resamples: int = 10_000, seed: int = 0) -> Intervals:
    """Intervals of mIoU and of each class's IoU over images drawn with replacement.

    Args:
        counts: (images, 3, C) int64 true positives, truth and predicted pixels (`cfnseg.metrics.confusion.counts_of`), or the
            same of boundaries (`cfnseg.metrics.boundary`).
        resamples: bootstrap samples.
        seed: of the draws; the same counts give the same intervals.

    Returns:
        `Intervals`, all of the same draws. A draw without a class is left out of that class's interval, and its mIoU is the
        mean of the others. Images of one video are not independent: the intervals are then too narrow.

    Source: Efron 1979; the percentile interval is that of Efron and Tibshirani 1993, ch. 13.
    """
    iou = np.concatenate([np.empty((0, counts.shape[-1])), *(iou_of(sums) for sums in resampled(counts, resamples, seed))])
    return Intervals(percentiles(mean_iou(iou)), percentiles(iou))


def bootstrap_miou(counts: np.ndarray, resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """The interval of mIoU alone as (low, high), see `bootstrap`; nan for no images."""
    low, high = bootstrap(counts, resamples, seed).miou
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


def resampled(values: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Sums over images drawn with replacement.

    Args:
        values: (images, ...) numbers; integers are summed exactly up to 2^53.
        resamples: bootstrap samples.
        seed: of the draws, which depend on it, on ``resamples`` and on the number of images alone.

    Yields:
        (rows, ...) float64, ``resamples`` rows in all; nothing if there are no images.
    """
    images = len(values)
    if not images:
        return
    flat = values.reshape(images, -1).astype(np.float64)
    rng = np.random.default_rng(seed)
    rows = max(1, DRAWN // images)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        cells = rng.integers(images, size=(size, images)) + images * np.arange(size)[:, None]
        # how often each image is drawn, times its values: one matrix product in place of resampling
        times = np.bincount(cells.ravel(), minlength=size * images).reshape(size, images)
        yield (times.astype(np.float64) @ flat).reshape(size, *values.shape[1:])


def mean_iou(iou: np.ndarray) -> np.ndarray:
    """(...,) mean over the known classes of (..., C) IoU; nan where no class is known."""
    known = ~np.isnan(iou)
    number = known.sum(-1)
    return np.divide(np.where(known, iou, 0).sum(-1), number, out=np.full(number.shape, np.nan), where=number > 0)


def percentiles(draws: np.ndarray) -> np.ndarray:
    """(..., 2) ends of the 95 % percentile interval of (resamples, ...) draws, nan ones left out; nan if all are."""
    columns = draws.reshape(len(draws), math.prod(draws.shape[1:])).T
    known = (column[~np.isnan(column)] for column in columns)
    ends = [np.percentile(column, [2.5, 97.5]) if len(column) else (np.nan, np.nan) for column in known]
    return np.array(ends).reshape(*draws.shape[1:], 2)
