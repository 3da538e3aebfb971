"""The paired bootstrap."""

import numpy as np
import pytest

from cfnseg.metrics.confusion import iou_of
from cfnseg.metrics.paired import paired_difference


def counts(rng: np.random.Generator, images: int = 40, classes: int = 3) -> np.ndarray:
    hit = rng.integers(1, 50, (images, classes))
    return np.stack([hit, hit + rng.integers(0, 30, hit.shape), hit + rng.integers(0, 30, hit.shape)], 1)


def test_the_difference_is_that_of_the_scores():
    rng = np.random.default_rng(0)
    ours, theirs = [counts(rng), counts(rng)], [counts(rng)]
    expected = np.mean([iou_of(r.sum(0)).mean() for r in ours]) - iou_of(theirs[0].sum(0)).mean()
    value, low, high, _ = paired_difference(ours, theirs, 500)
    assert value == pytest.approx(expected, abs=1e-12) and low < value < high


def test_equal_runs_differ_by_nothing():
    run = counts(np.random.default_rng(1))
    assert paired_difference([run], [run], 100) == (0, 0, 0, 1)


def test_interval_against_a_loop_over_resamples():
    rng = np.random.default_rng(2)
    a, b = counts(rng, 15), counts(rng, 15)
    loop = []
    for _ in range(4000):
        drawn = rng.integers(0, 15, 15)
        loop.append(iou_of(a[drawn].sum(0)).mean() - iou_of(b[drawn].sum(0)).mean())
    low, high = np.percentile(loop, [2.5, 97.5])
    _, ours_low, ours_high, _ = paired_difference([a], [b], 4000)
    assert (ours_low, ours_high) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))


def test_pairing_is_narrower_where_images_are_hard_for_both():
    rng = np.random.default_rng(3)
    hard = rng.random(200)
    a, b = hard, np.clip(hard - 0.05, 0, 1)
    _, low, high, p = paired_difference([a], [b], 1000)
    spread = np.percentile([rng.choice(a, 200).mean() - rng.choice(b, 200).mean() for _ in range(1000)], [2.5, 97.5])
    assert high - low < (spread[1] - spread[0]) / 5 and low > 0
    assert p == 2 / 1001  # no draw reaches 0


def test_numbers_are_scored_by_their_mean_and_a_seed_gives_one_interval():
    a, b = np.array([1.0, 0, 1, 1]), np.array([0.0, 0, 1, 0])
    assert paired_difference([a], [b], 200)[0] == 0.5
    assert paired_difference([a], [b], 200, seed=4) == paired_difference([a], [b], 200, seed=4)


@pytest.mark.parametrize(("ours", "theirs"), [([], [np.ones(3)]), ([np.ones(3)], [np.ones(4)]), ([np.ones(0)], [np.ones(0)])])
def test_runs_that_do_not_go_together(ours, theirs):
    with pytest.raises(ValueError, match="expected runs over the same images"):
        paired_difference(ours, theirs)
