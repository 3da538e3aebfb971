"""How much a difference between two systems varies with the seed of their training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def seed_difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """How much better ``ours`` scores than ``theirs`` on average, with a 95 % interval over seeds.

    Args:
        ours, theirs: scores of trained runs, one per seed, in the order of the same seeds.

    Returns:
        Mean difference, and the ends of Student's t interval of paired differences (Student 1908); nan for ends of one seed.
        With two or three seeds the interval is wide, as it should be: so few runs say little.

    Raises:
        ValueError: different numbers of seeds, or none.
    """
    if len(ours) != len(theirs) or not len(ours):
        raise ValueError(f"ours and theirs: expected scores of the same seeds, got {len(ours)} and {len(theirs)}")
    each = np.subtract(ours, theirs)
    mean, count = float(each.mean()), len(each)
    if count < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, count - 1) * each.std(ddof=1) / np.sqrt(count))
    return mean, mean - half, mean + half
