"""Bands around true boundaries against the distance to another class, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_cdt

from cfnseg.metrics.trimap import WIDTHS, trimap_counts


def by_distance(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Definition: chessboard distance from a class's pixel to the nearest counted other class."""
    counts = np.zeros((len(WIDTHS), 3, classes), np.int64)
    distance = np.full(truth.shape, 10**6)
    for c in range(classes):
        others = (truth != c) & (truth != 255)
        if others.any():
            mine = truth == c
            distance[mine] = distance_transform_cdt(~others, "chessboard")[mine]
    for i, width in enumerate(WIDTHS):
        band = (distance <= width) & (truth != 255)
        for c in range(classes):
            t, p = (truth == c) & band, (prediction == c) & band
            counts[i, :, c] = (t & p).sum(), t.sum(), p.sum()
    return counts


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_is_the_definition(seed):
    rng = np.random.default_rng(seed)
    height, width, classes = (
        int(rng.integers(1, 70)),
        int(rng.integers(1, 70)),
        int(rng.integers(1, 6)),
    )
    size = int(rng.integers(1, 30))
    truth, prediction = (
        np.kron(rng.integers(0, classes, (70 // size + 1,) * 2), np.ones((size, size))).astype(
            np.uint8
        )[:height, :width]
        for _ in range(2)
    )
    truth, prediction = truth.copy(), prediction.copy()
    truth[rng.random(truth.shape) < rng.choice([0, 0.1, 0.9])] = 255
    prediction[rng.random(truth.shape) < rng.choice([0, 0.1])] = 255
    assert np.array_equal(
        trimap_counts(truth, prediction, classes), by_distance(truth, prediction, classes)
    )


def test_known_edge():
    truth = np.zeros((10, 40), np.uint8)
    truth[:, 20:] = 1
    counts = trimap_counts(truth, truth, 2)
    assert counts[:, 1].tolist() == [
        [10 * min(w, 20)] * 2 for w in WIDTHS
    ]  # the columns on either side
    truth[:, 18:22] = 255  # an ignored outline of 4: the classes are 5 pixels apart
    assert trimap_counts(truth, truth, 2)[:, 1].tolist() == [
        [10 * max(0, min(w - 4, 18))] * 2 for w in WIDTHS
    ]


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"expected shape \(4, 4\)"):
        trimap_counts(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), 2)
