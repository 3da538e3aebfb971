"""Dice and its counts, against scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, multilabel_confusion_matrix
from torchmetrics.functional.segmentation import dice_score

from cfnseg.metrics.dice import (
    GRID,
    best_thresholds,
    dice_interval,
    dice_of,
    grid_counts,
    image_dice,
    mask_counts,
    mean_dice,
    mean_interval,
)


def case(seed: int, classes: int = 3, size=(13, 17)):
    rng = np.random.default_rng(seed)
    chances = rng.random((classes, *size)).astype(np.float32)
    chances[:, 0] = rng.choice(GRID, (classes, size[1]))  # exactly on a threshold
    layers = rng.choice(np.array([0, 1, 255], np.uint8), (*size, classes), p=(0.5, 0.4, 0.1))
    return torch.from_numpy(chances), torch.from_numpy(layers)


@given(seed=st.integers(0, 10_000), classes=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_counts_are_those_of_scikit_learn_at_every_threshold(seed, classes):
    chances, layers = case(seed, classes)
    found = grid_counts(chances, layers).numpy()
    assert found.shape == (19, 3, classes) and found.dtype == np.int64
    for k, threshold in enumerate(GRID):
        masks = chances >= float(threshold) if k % 2 else chances >= torch.tensor(threshold)
        for c in range(classes):
            counted = layers[..., c].numpy() != 255
            truth, mask = layers[..., c].numpy()[counted], masks[c].numpy()[counted]
            pair = (np.column_stack([one, one]) for one in (truth == 1, mask))  # two labels of one
            ((tn, fp), (fn, tp)), _ = multilabel_confusion_matrix(*pair)
            assert found[k, :, c].tolist() == [tp, tp + fn, tp + fp]
            assert dice_of(found[k])[c] == pytest.approx(
                f1_score(truth == 1, mask, zero_division=np.nan), nan_ok=True
            )
        assert np.array_equal(mask_counts(masks, layers), found[k])


def test_dice_is_that_of_torchmetrics():
    chances, layers = case(1)
    layers = torch.where(layers == 255, 0, layers)
    masks = chances >= 0.4
    counts = mask_counts(masks, layers)
    theirs = dice_score(
        masks[None].int(),
        layers.permute(2, 0, 1)[None].int(),
        3,
        average="none",
        input_format="one-hot",
    )[0]
    assert dice_of(counts) == pytest.approx(theirs.numpy(), rel=1e-6)
    assert mean_dice(counts) == pytest.approx(float(theirs.mean()), rel=1e-6)


def test_empty_truths():
    """Both empty: no score, as MONAI's ignore_empty leaves it out. False pixels alone: 0."""
    counts = np.array(
        [[[0, 5], [0, 5], [0, 5]], [[0, 0], [0, 5], [3, 0]], [[0, 0], [0, 0], [0, 0]]]
    )
    assert np.array_equal(dice_of(counts), [[np.nan, 1], [0, 0], [np.nan, np.nan]], equal_nan=True)
    assert np.array_equal(image_dice(counts), [1, 0, np.nan], equal_nan=True)
    low, high = mean_interval(image_dice(counts))
    assert low == 0 and high == 1
    assert (
        np.isnan(mean_interval(np.array([np.nan]))).all()
        and np.isnan(mean_interval(np.empty(0))).all()
    )


def test_the_interval_is_the_bootstraps():
    rng = np.random.default_rng(0)
    values = rng.random(60)
    low, high = mean_interval(values)
    error = 1.96 * values.std() / np.sqrt(60)
    assert low == pytest.approx(values.mean() - error, abs=0.01)
    assert high == pytest.approx(values.mean() + error, abs=0.01)
    counts = rng.integers(1, 50, (40, 3, 2))
    counts[:, 1:] += counts[:, :1]
    low, high = dice_interval(counts)
    assert low < mean_dice(counts.sum(0)) < high


def test_thresholds_with_the_best_dice():
    """A class whose probabilities all lie low needs a low threshold; 0.5 stays without need."""
    layers = torch.zeros(10, 10, 4, dtype=torch.uint8)
    layers[:5, :, :3] = 1
    chances = torch.zeros(4, 10, 10)
    chances[0, :5], chances[0, 5:] = 0.22, 0.12  # parted by 0.15 and 0.2
    chances[1, :5], chances[1, 5:] = 0.9, 0.1  # parted by many
    chances[2, :5], chances[2, 5:] = 0.96, 0.93  # parted by 0.95
    chances[3] = 0.7  # in no truth
    counts = grid_counts(chances, layers).numpy()
    found = best_thresholds(counts)
    assert found.tolist() == [0.2, 0.5, 0.95, 0.5]
    at = [int(np.flatnonzero(np.isclose(GRID, t))[0]) for t in found]
    assert [dice_of(counts[k])[c] for c, k in enumerate(at)][:3] == [1, 1, 1]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_no_threshold_of_the_grid_is_better(seed):
    counts = grid_counts(*case(seed)).numpy()
    best = best_thresholds(counts)
    for c, threshold in enumerate(best):
        own = dice_of(counts[int(np.abs(GRID - threshold).argmin())])[c]
        assert own == pytest.approx(np.nanmax(dice_of(counts)[:, c]))
