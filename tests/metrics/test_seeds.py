"""The interval over seeds, against scipy's paired t-test."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from cfnseg.metrics.uncertainty import seed_difference


@pytest.mark.parametrize("count", [2, 3, 10])
def test_equals_scipys_paired_t_test(count):
    rng = np.random.default_rng(count)
    ours, theirs = rng.random(count), rng.random(count)
    theirs_interval = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert seed_difference(ours, theirs) == pytest.approx((np.mean(ours) - np.mean(theirs), *theirs_interval))


def test_one_seed_has_no_interval_and_other_seeds_are_refused():
    value, low, high = seed_difference([0.7], [0.5])
    assert value == pytest.approx(0.2) and math.isnan(low) and math.isnan(high)
    for ours, theirs in (([0.5, 0.6], [0.5]), ([], [])):
        with pytest.raises(ValueError, match="scores of the same seeds"):
            seed_difference(ours, theirs)
