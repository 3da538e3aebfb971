"""The bootstrap over images, paired or not, and the interval over seeds."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from cfnseg.metrics.confusion import confusion_matrix, counts_of, iou_of
from cfnseg.metrics.uncertainty import (
    bootstrap,
    bootstrap_miou,
    paired_classes,
    paired_difference,
    seed_difference,
)


def test_bootstrap_interval():
    rng = np.random.default_rng(0)
    matrices = [
        confusion_matrix(t, np.where(rng.random(t.shape) < 0.8, t, 0).astype(np.uint8), 3)
        for t in rng.integers(0, 3, (40, 20, 20)).astype(np.uint8)
    ]
    counts = np.stack([counts_of(m) for m in matrices])
    low, high = bootstrap_miou(counts)
    point = np.nanmean(iou_of(counts.sum(0)))
    assert low < point < high
    assert high - low < 0.05
    assert bootstrap_miou(counts) == (low, high)
    assert bootstrap_miou(counts, seed=1) != (low, high)
    same = np.repeat(counts[:1], 40, 0)
    assert bootstrap_miou(same) == pytest.approx([np.nanmean(iou_of(counts[0]))] * 2)
    assert np.isnan(bootstrap_miou(counts[:0])).all()


def test_intervals_of_classes_against_a_loop_over_resamples():
    rng = np.random.default_rng(1)
    hit = rng.integers(1, 60, (25, 4))
    counts = np.stack(
        [hit, hit + rng.integers(0, 40, hit.shape), hit + rng.integers(0, 40, hit.shape)], 1
    )
    counts[:, :, 3] = 0  # nowhere
    counts[1:, :, 2] = 0  # in one image alone, so in 1 - (24 / 25)^25 = 64 % of the draws
    loop = np.stack([iou_of(counts[rng.integers(0, 25, 25)].sum(0)) for _ in range(6000)])
    ends = bootstrap(counts, 6000)
    assert np.isnan(ends.classes[3]).all()
    np.testing.assert_allclose(
        ends.classes[:3], np.nanpercentile(loop[:, :3], [2.5, 97.5], axis=0).T, atol=0.01
    )
    np.testing.assert_allclose(
        ends.miou, np.percentile(np.nanmean(loop[:, :3], 1), [2.5, 97.5]), atol=0.01
    )
    assert ends.classes[2, 0] == ends.classes[2, 1] == iou_of(counts.sum(0))[2]


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    world = 100 * (
        1 - rng.random((4000, 1)) * np.array([0.2, 0.6])
    )  # hits per 100 pixels of two classes, in all images
    every = np.stack([world, np.full(world.shape, 100.0), np.full(world.shape, 100.0)], 1).astype(
        np.int64
    )
    truth = iou_of(every.sum(0)).mean()
    held = 0
    for _ in range(300):
        low, high = bootstrap_miou(every[rng.integers(0, len(every), 60)], 400)
        held += low <= truth <= high
    assert 0.9 < held / 300 < 0.98


def test_blocks_bound_the_memory_and_change_nothing(monkeypatch):
    counts = np.random.default_rng(3).integers(1, 9, (30, 3, 2)).cumsum(1)[:, [0, 2, 1]]
    whole = bootstrap(counts, 1000)
    monkeypatch.setattr("cfnseg.metrics.uncertainty.DRAWN", 30 * 7)  # seven resamples at once
    blocks = bootstrap(counts, 1000)
    assert np.array_equal(blocks.miou, whole.miou) and np.array_equal(blocks.classes, whole.classes)


def drawn_counts(rng: np.random.Generator, images: int = 40, classes: int = 3) -> np.ndarray:
    hit = rng.integers(1, 50, (images, classes))
    return np.stack(
        [hit, hit + rng.integers(0, 30, hit.shape), hit + rng.integers(0, 30, hit.shape)], 1
    )


def test_the_difference_is_that_of_the_scores():
    rng = np.random.default_rng(0)
    ours, theirs = [drawn_counts(rng), drawn_counts(rng)], [drawn_counts(rng)]
    expected = np.mean([iou_of(r.sum(0)).mean() for r in ours]) - iou_of(theirs[0].sum(0)).mean()
    value, low, high, _ = paired_difference(ours, theirs, 500)
    assert value == pytest.approx(expected, abs=1e-12) and low < value < high


def test_equal_runs_differ_by_nothing():
    run = drawn_counts(np.random.default_rng(1))
    assert paired_difference([run], [run], 100) == (0, 0, 0, 1)


def test_interval_against_a_loop_over_resamples():
    rng = np.random.default_rng(2)
    a, b = drawn_counts(rng, 15), drawn_counts(rng, 15)
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
    spread = np.percentile(
        [rng.choice(a, 200).mean() - rng.choice(b, 200).mean() for _ in range(1000)], [2.5, 97.5]
    )
    assert high - low < (spread[1] - spread[0]) / 5 and low > 0
    assert p == 2 / 1001  # no draw reaches 0


def test_numbers_are_scored_by_their_mean_and_a_seed_gives_one_interval():
    a, b = np.array([1.0, 0, 1, 1]), np.array([0.0, 0, 1, 0])
    assert paired_difference([a], [b], 200)[0] == 0.5
    assert paired_difference([a], [b], 200, seed=4) == paired_difference([a], [b], 200, seed=4)


def test_differences_of_classes_are_those_of_the_same_draws():
    rng = np.random.default_rng(5)
    a, b = drawn_counts(rng), drawn_counts(rng)
    a[:, :, 1] = 0  # absent
    b[:, :, 1] = 0
    a[:, :, 2], b[:, :, 2] = 3 * b[:, :, 2], b[:, :, 2]
    found = paired_classes([a], [b], 500)
    assert found.shape == (3, 3) and np.isnan(found[1]).all()
    assert (
        found[0, 0] == pytest.approx((iou_of(a.sum(0)) - iou_of(b.sum(0)))[0])
        and found[0, 1] < found[0, 0] < found[0, 2]
    )
    assert found[2] == pytest.approx([0, 0, 0], abs=1e-12)
    assert paired_difference([a[:, :, :1]], [b[:, :, :1]], 500)[1:3] == pytest.approx(
        found[0, 1:], abs=1e-12
    )


def test_p_value_is_small_where_the_interval_excludes_zero_and_uniform_where_nothing_differs():
    rng = np.random.default_rng(6)
    values = [
        paired_difference([rng.random(50)], [rng.random(50)], 300, seed=i)[3] for i in range(200)
    ]
    assert 0.01 < np.mean(np.array(values) < 0.05) < 0.1 and 0.35 < np.mean(values) < 0.65
    _, low, high, p = paired_difference([rng.random(50) + 0.3], [rng.random(50)], 2000)
    assert low > 0 and p < 0.05


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [([], [np.ones(3)]), ([np.ones(3)], [np.ones(4)]), ([np.ones(0)], [np.ones(0)])],
)
def test_runs_that_do_not_go_together(ours, theirs):
    with pytest.raises(ValueError, match="expected runs over the same images"):
        paired_difference(ours, theirs)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_equals_scipys_paired_t_test(count):
    rng = np.random.default_rng(count)
    ours, theirs = rng.random(count), rng.random(count)
    theirs_interval = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert seed_difference(ours, theirs) == pytest.approx(
        (np.mean(ours) - np.mean(theirs), *theirs_interval)
    )


def test_one_seed_has_no_interval_and_other_seeds_are_refused():
    value, low, high = seed_difference([0.7], [0.5])
    assert value == pytest.approx(0.2) and math.isnan(low) and math.isnan(high)
    for ours, theirs in (([0.5, 0.6], [0.5]), ([], [])):
        with pytest.raises(ValueError, match="scores of the same seeds"):
            seed_difference(ours, theirs)
