"""The paired bootstrap."""

import numpy as np
import pytest

from cfnseg.metrics.confusion import iou_of
from cfnseg.metrics.uncertainty import paired_classes, paired_difference


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


def test_differences_of_classes_are_those_of_the_same_draws():
    rng = np.random.default_rng(5)
    a, b = counts(rng), counts(rng)
    a[:, :, 1] = 0  # a class that one side has nowhere
    b[:, :, 1] = 0
    a[:, :, 2], b[:, :, 2] = 3 * b[:, :, 2], b[:, :, 2]
    found = paired_classes([a], [b], 500)
    assert found.shape == (3, 3) and np.isnan(found[1]).all()
    assert found[0, 0] == pytest.approx((iou_of(a.sum(0)) - iou_of(b.sum(0)))[0]) and found[0, 1] < found[0, 0] < found[0, 2]
    assert found[2] == pytest.approx([0, 0, 0], abs=1e-12)
    assert paired_difference([a[:, :, :1]], [b[:, :, :1]], 500)[1:3] == pytest.approx(found[0, 1:], abs=1e-12)


def test_p_value_is_small_where_the_interval_excludes_zero_and_uniform_where_nothing_differs():
    rng = np.random.default_rng(6)
    values = [paired_difference([rng.random(50)], [rng.random(50)], 300, seed=i)[3] for i in range(200)]
    assert 0.01 < np.mean(np.array(values) < 0.05) < 0.1 and 0.35 < np.mean(values) < 0.65
    _, low, high, p = paired_difference([rng.random(50) + 0.3], [rng.random(50)], 2000)
    assert low > 0 and p < 0.05


@pytest.mark.parametrize(("ours", "theirs"), [([], [np.ones(3)]), ([np.ones(3)], [np.ones(4)]), ([np.ones(0)], [np.ones(0)])])
def test_runs_that_do_not_go_together(ours, theirs):
    with pytest.raises(ValueError, match="expected runs over the same images"):
        paired_difference(ours, theirs)
