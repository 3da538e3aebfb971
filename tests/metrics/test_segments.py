"""Sizes of segments against a class-by-class labelling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from cfnseg.metrics.confusion import confusion_matrix, counts_of
from cfnseg.metrics.segments import LIMITS, SIZES, size_counts


def sizes_of(mask: np.ndarray, classes: int) -> np.ndarray:
    """(H, W) 0, 1, 2: the size of each pixel's segment, one class at a time."""
    size = np.zeros(mask.shape, np.int64)
    for c in range(classes):
        segments, _ = label(mask == c, np.ones((3, 3)))
        areas = np.bincount(segments.ravel())
        mine = segments > 0
        size[mine] = np.digitize(areas, LIMITS)[segments[mine]]
    return size


def by_labelling(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    counted = np.where(truth == 255, 255, prediction)
    true_size, predicted_size = sizes_of(truth, classes), sizes_of(counted, classes)
    counts = np.zeros((len(SIZES), 3, classes), np.int64)
    for s in range(len(SIZES)):
        for c in range(classes):
            hit = (truth == c) & (counted == c) & (true_size == s)
            true = (truth == c) & (true_size == s)
            false = (counted == c) & (truth != c) & (predicted_size == s)
            counts[s, :, c] = hit.sum(), true.sum(), hit.sum() + false.sum()
    return counts


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_is_the_definition(seed):
    rng = np.random.default_rng(seed)
    height, width, classes = (
        int(rng.integers(1, 150)),
        int(rng.integers(1, 150)),
        int(rng.integers(1, 5)),
    )
    size = int(rng.integers(1, 60))
    truth, prediction = (
        np.kron(rng.integers(0, classes, (150 // size + 1,) * 2), np.ones((size, size))).astype(
            np.uint8
        )[:height, :width]
        for _ in range(2)
    )
    truth, prediction = truth.copy(), prediction.copy()
    truth[rng.random(truth.shape) < rng.choice([0, 0.01, 0.6])] = 255
    prediction[rng.random(truth.shape) < rng.choice([0, 0.05])] = rng.integers(0, classes)
    counts = size_counts(truth, prediction, classes)
    assert np.array_equal(counts, by_labelling(truth, prediction, classes))
    assert np.array_equal(counts.sum(0), counts_of(confusion_matrix(truth, prediction, classes)))


def test_known_segments():
    truth = np.zeros((200, 200), np.uint8)
    truth[:31, :33] = 1  # 1023 pixels
    truth[31:63, 33:65] = 1  # 1024 more that touch at a corner only: one segment
    assert size_counts(truth, truth, 2)[:, 1].tolist() == [[0, 0], [0, 2047], [40000 - 2047, 0]]
    truth[31, 33] = 255  # apart, and one pixel less
    assert size_counts(truth, truth, 2)[:, 1].tolist() == [
        [0, 1023 + 1023],
        [0, 0],
        [40000 - 2047, 0],
    ]


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"expected shape \(4, 4\)"):
        size_counts(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), 2)
