"""Reliability counts."""

import numpy as np
import pytest

from cfnseg.metrics.calibration import BINS, calibration_counts, expected_calibration_error


def test_counted_by_hand():
    confidence = np.array([[0.0, 0.01, 0.5], [0.95, 1.0, 0.5]], np.float32)
    right = np.array([[False, True, True], [True, False, True]])
    counted = np.array([[True, True, True], [True, True, False]])
    counts = calibration_counts(confidence, right, counted)
    assert counts.shape == (BINS, 3) and counts[:, 0].sum() == 5
    assert counts[0].tolist() == pytest.approx([2, 0.01, 1]) and counts[
        7
    ].tolist() == pytest.approx([1, 0.5, 1])
    assert counts[14].tolist() == pytest.approx([2, 1.95, 1])
    assert expected_calibration_error(counts) == pytest.approx((0.99 + 0.5 + 0.95) / 5)


def test_a_confidence_that_is_true_has_no_error():
    rng = np.random.default_rng(0)
    confidence = rng.random((400, 500)).astype(np.float32)
    counted = np.ones(confidence.shape, bool)
    honest = expected_calibration_error(
        calibration_counts(confidence, rng.random(confidence.shape) < confidence, counted)
    )
    assert (
        honest
        < 0.01
        < 0.2
        < expected_calibration_error(
            calibration_counts(confidence, rng.random(confidence.shape) < 0.5, counted)
        )
    )


def test_nothing_counted_and_what_is_no_confidence():
    one = np.full((1, 1), 0.5, np.float32)
    counts = calibration_counts(one, one > 0, one < 0)
    assert not counts.any() and np.isnan(expected_calibration_error(counts))
    with pytest.raises(ValueError, match=r"expected 0\.\.1, got 0\.0 to 3\.0"):
        calibration_counts(one * 6, one > 0, one > 0)
    with pytest.raises(ValueError, match="expected one shape"):
        calibration_counts(one, np.ones((1, 2), bool), one > 0)
