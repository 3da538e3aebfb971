"""Boundary counts against the authors' erosion, pixel by pixel."""

import cv2
import numpy as np
import pytest

from cfnseg.metrics.boundary import boundary_counts, boundary_width
from cfnseg.metrics.confusion import iou_of


def paper_boundary(mask: np.ndarray, ratio: float) -> np.ndarray:
    """The definition for one binary mask: d erosions by 3x3 ones, with a ring of zeros."""
    height, width = mask.shape
    ringed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(
        ringed, np.ones((3, 3), np.uint8), iterations=boundary_width(height, width, ratio)
    )
    return mask.astype(bool) & ~eroded[1:-1, 1:-1].astype(bool)


def by_definition(
    truth: np.ndarray, prediction: np.ndarray, classes: int, ratio: float
) -> np.ndarray:
    counted, counts = truth != 255, []
    for c in range(classes):
        t, p = (paper_boundary((mask == c) & counted, ratio) for mask in (truth, prediction))
        counts.append([(t & p).sum(), t.sum(), p.sum()])
    return np.array(counts).T


def brute_force_boundary(mask: np.ndarray, reach: int) -> np.ndarray:
    """Without OpenCV: mask pixels within ``reach`` of a pixel outside the mask or the image."""
    height, width = mask.shape
    edge = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask)):
        inside = reach <= y < height - reach and reach <= x < width - reach
        edge[y, x] = not (
            inside and mask[y - reach : y + reach + 1, x - reach : x + reach + 1].all()
        )
    return edge


def blobs(rng, height: int, width: int, classes: int) -> np.ndarray:
    coarse = rng.integers(0, classes, (6, 7), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize("seed", range(6))
def test_is_the_definition(seed):
    rng = np.random.default_rng(seed)
    height, width, classes = (
        int(rng.integers(20, 130)),
        int(rng.integers(20, 130)),
        int(rng.integers(2, 9)),
    )
    truth, prediction = blobs(rng, height, width, classes), blobs(rng, height, width, classes)
    truth[rng.random(truth.shape) < 0.01 * (seed % 2)] = 255
    truth[5:9, 4:15] = 255
    prediction[2:4, 10:20] = 255  # pixels without a class
    for ratio in (0.001, 0.02, 0.3):
        assert (
            boundary_counts(truth, prediction, classes, ratio)
            == by_definition(truth, prediction, classes, ratio)
        ).all()


def test_binary_without_opencv():
    rng = np.random.default_rng(1)
    truth, prediction = blobs(rng, 60, 80, 2), blobs(rng, 60, 80, 2)
    t, p = (brute_force_boundary(mask == 1, 2) for mask in (truth, prediction))
    assert boundary_width(60, 80) == 2
    assert boundary_counts(truth, prediction, 2)[:, 1].tolist() == [(t & p).sum(), t.sum(), p.sum()]


def test_known_square():
    truth, prediction = np.zeros((30, 40), np.uint8), np.zeros((30, 40), np.uint8)
    truth[5:15, 5:15] = 1
    prediction[5:15, 6:16] = 1
    # diagonal 50, so d = 1: rings of 36 pixels; they share 9 columns of the top and the bottom row
    assert boundary_counts(truth, prediction, 2)[:, 1].tolist() == [18, 36, 36]


def test_right_where_it_counts_scores_one():
    rng = np.random.default_rng(2)
    prediction = blobs(rng, 90, 120, 5)
    truth = prediction.copy()
    truth[30:60, 20:90] = 255
    iou = iou_of(boundary_counts(truth, prediction, 5))
    assert (iou[~np.isnan(iou)] == 1).all()


def test_absent_and_ignored_classes_count_nothing():
    truth, prediction = np.full((20, 20), 255, np.uint8), np.zeros((20, 20), np.uint8)
    counts = boundary_counts(truth, prediction, 4)
    assert counts.shape == (3, 4) and counts.dtype == np.int64 and not counts.any()


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"expected shape \(4, 4\)"):
        boundary_counts(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), 2)
