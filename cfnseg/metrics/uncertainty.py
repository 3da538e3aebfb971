"""How far a score could move: the bootstrap over images, paired or not, and Student's t over seeds.

The paired bootstrap scores two systems on the same draws of images, so what makes an image hard for
both cancels (Efron and Tibshirani 1993, ch. 16). A draw's score is the mean over a system's runs;
an interval over images leaves out how runs differ by seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from cfnseg.metrics.confusion import iou_of, mean_iou

DRAWN = 1 << 20  # images drawn at once, which bounds the memory to about 25 MB
ENDS = (2.5, 97.5)  # percentiles of a 95 % interval


@dataclass(frozen=True)
class Intervals:
    """95 % percentile intervals, low and high end in 0..1; nan where nothing was counted.

    Attributes:
        miou: (2,).
        classes: (C, 2).
    """

    miou: np.ndarray
    classes: np.ndarray


def bootstrap(counts: np.ndarray, resamples: int = 10_000, seed: int = 0) -> Intervals:
    """Intervals of mIoU and of each class's IoU over images drawn with replacement.

    Args:
        counts: (images, 3, C) int64 true positives, truth and predicted pixels
            (`cfnseg.metrics.confusion.counts_of`), or the same of boundaries.
        resamples: bootstrap samples.
        seed: of the draws; the same counts give the same intervals.

    Returns:
        `Intervals` of the same draws. A draw without a class leaves that class's interval, and its
        mIoU is the mean of the other classes. Images of one video are not independent: their
        intervals are too narrow.

    Source: Efron 1979; the percentile interval of Efron and Tibshirani 1993, ch. 13.
    """
    draws = [iou_of(sums) for sums in resampled(counts, resamples, seed)]
    iou = np.concatenate([np.empty((0, counts.shape[-1])), *draws])
    return Intervals(percentiles(mean_iou(iou)), percentiles(iou))


def bootstrap_miou(
    counts: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The interval of mIoU alone as (low, high), see `bootstrap`; nan without images."""
    low, high = bootstrap(counts, resamples, seed).miou
    return float(low), float(high)


def bootstrap_mean(
    values: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """A 95 % interval of the mean of one number per image, over images drawn with replacement.

    Args:
        values: (images,) with few distinct ones, such as 0 and 1. A resample is drawn as the count
            of each: for 0 and 1 a binomial draw. Memory is resamples x distinct values x 8 bytes.
        resamples: bootstrap samples.
        seed: of the draws; the same values give the same interval.

    Returns:
        (low, high) in the values' unit; nan without images.
    """
    images = len(values)
    if not images:
        return float("nan"), float("nan")
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    draws = np.random.default_rng(seed).multinomial(images, counts / images, size=resamples)
    low, high = np.percentile(draws @ distinct / images, ENDS)
    return float(low), float(high)


def paired_difference(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float, float]:
    """How much better ``ours`` scores than ``theirs``, with a 95 % percentile interval over images.

    Args:
        ours, theirs: one array per run, of the same images in the same order: (images, 3, C) counts
            (`cfnseg.metrics.confusion.counts_of`), scored by mIoU, or (images,) numbers, scored by
            their mean.
        resamples: bootstrap samples.
        seed: of the draws.

    Returns:
        Difference of the scores, the interval's low and high end, and the two-sided p-value of no
        difference: the share of draws whose difference is 0 or has the rarer sign, with one draw
        added, doubled, at most 1. It is never below 2 / (resamples + 1). All nan if nothing was
        counted.

    Raises:
        ValueError: no run, no image, or arrays of different images.

    Source: the p-value belongs to the percentile interval that just touches 0 (Efron and Tibshirani
    1993, ch. 15.4), with one draw added as in Davison and Hinkley 1997, ch. 4.2.
    """

    def score(sums: np.ndarray) -> np.ndarray:
        return mean_iou(iou_of(sums)) if sums.ndim == 4 else sums / len(ours[0])

    found = _differences(ours, theirs, score, resamples, seed)
    known, p = found[1:][~np.isnan(found[1:])], float("nan")
    if len(known):
        rarer = min((known <= 0).sum(), (known >= 0).sum())
        p = min(1.0, 2 * (1 + rarer) / (1 + len(known)))
    low, high = percentiles(known)
    return float(found[0]), float(low), float(high), float(p)


def paired_classes(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    resamples: int = 10_000,
    seed: int = 0,
) -> np.ndarray:
    """The same for the IoU of each class.

    Args:
        ours, theirs: one (images, 3, C) array of counts per run, as for `paired_difference`.
        resamples: bootstrap samples.
        seed: of the draws, which are the draws of `paired_difference`.

    Returns:
        (C, 3) float64: difference of IoU, low and high end of its interval; nan for a class for
        which some run has no IoU.

    Raises:
        ValueError: no run, no image, or arrays of different images.
    """
    found = _differences(ours, theirs, iou_of, resamples, seed)
    ends = percentiles(found[1:])
    ends[np.isnan(found[0])] = np.nan
    return np.column_stack([found[0], ends])


def _differences(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    score: Callable[[np.ndarray], np.ndarray],
    resamples: int,
    seed: int,
) -> np.ndarray:
    """(1 + resamples, ...) ours less theirs: of the images as they are, then of each draw."""
    runs = [np.asarray(run) for run in (*ours, *theirs)]
    alike = all(run.shape == runs[0].shape for run in runs)
    if not len(ours) or not len(theirs) or not alike or not len(runs[0]):
        shapes = [run.shape for run in runs]
        raise ValueError(
            f"ours and theirs: expected runs over the same images, got shapes {shapes}"
        )
    values = np.stack(runs, 1)
    sums = chain([values.sum(0)[None].astype(np.float64)], resampled(values, resamples, seed))
    scores = np.concatenate([score(drawn) for drawn in sums])
    return scores[:, : len(ours)].mean(1) - scores[:, len(ours) :].mean(1)


def seed_difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """How much better ``ours`` scores than ``theirs`` on average, with a 95 % interval over seeds.

    Args:
        ours, theirs: scores of trained runs, one per seed, in the order of the same seeds.

    Returns:
        Mean difference, and the ends of Student's t interval of paired differences (Student 1908);
        nan for the ends of one seed. Two or three seeds give a wide interval.

    Raises:
        ValueError: different numbers of seeds, or none.
    """
    from scipy import stats

    if len(ours) != len(theirs) or not len(ours):
        lengths = f"{len(ours)} and {len(theirs)}"
        raise ValueError(f"ours and theirs: expected scores of the same seeds, got {lengths}")
    each, count = np.subtract(ours, theirs), len(ours)
    mean = float(each.mean())
    if count < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, count - 1) * each.std(ddof=1) / np.sqrt(count))
    return mean, mean - half, mean + half


def resampled(values: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Sums over images drawn with replacement.

    Args:
        values: (images, ...) numbers; integers are summed exactly up to 2^53.
        resamples: bootstrap samples.
        seed: of the draws, which depend on it, ``resamples`` and the number of images alone.

    Yields:
        (rows, ...) float64, ``resamples`` rows in all; nothing without images.
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
        # how often each image is drawn, times its values: a matrix product instead of indexing
        times = np.bincount(cells.ravel(), minlength=size * images).reshape(size, images)
        yield (times.astype(np.float64) @ flat).reshape(size, *values.shape[1:])


def percentiles(draws: np.ndarray) -> np.ndarray:
    """(..., 2) ends of the 95 % percentile interval of (resamples, ...) draws, without the nans.

    nan where all draws are nan.
    """
    columns = draws.reshape(len(draws), math.prod(draws.shape[1:])).T
    known = (column[~np.isnan(column)] for column in columns)
    ends = [np.percentile(column, ENDS) if len(column) else (np.nan, np.nan) for column in known]
    return np.array(ends).reshape(*draws.shape[1:], 2)
