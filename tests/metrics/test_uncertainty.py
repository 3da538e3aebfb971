"""The bootstrap over images."""

import numpy as np
import pytest

from cfnseg.metrics.confusion import confusion_matrix, counts_of, iou_of
from cfnseg.metrics.uncertainty import bootstrap, bootstrap_miou


def test_bootstrap_interval():
    rng = np.random.default_rng(0)
    matrices = [confusion_matrix(t, np.where(rng.random(t.shape) < 0.8, t, 0).astype(np.uint8), 3)
                for t in rng.integers(0, 3, (40, 20, 20)).astype(np.uint8)]
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
    counts = np.stack([hit, hit + rng.integers(0, 40, hit.shape), hit + rng.integers(0, 40, hit.shape)], 1)
    counts[:, :, 3] = 0  # nowhere
    counts[1:, :, 2] = 0  # in one image alone, so in 1 - (24 / 25)^25 = 64 % of the draws
    loop = np.stack([iou_of(counts[rng.integers(0, 25, 25)].sum(0)) for _ in range(6000)])
    ends = bootstrap(counts, 6000)
    assert np.isnan(ends.classes[3]).all()
    np.testing.assert_allclose(ends.classes[:3], np.nanpercentile(loop[:, :3], [2.5, 97.5], axis=0).T, atol=0.01)
    np.testing.assert_allclose(ends.miou, np.percentile(np.nanmean(loop[:, :3], 1), [2.5, 97.5]), atol=0.01)
    assert ends.classes[2, 0] == ends.classes[2, 1] == iou_of(counts.sum(0))[2]


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    world = 100 * (1 - rng.random((4000, 1)) * np.array([0.2, 0.6]))  # hits of 100 pixels of two classes in all images there are
    every = np.stack([world, np.full(world.shape, 100.0), np.full(world.shape, 100.0)], 1).astype(np.int64)
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
