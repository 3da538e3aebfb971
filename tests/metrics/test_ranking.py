"""Average precision and top-k errors, counted by hand."""

import numpy as np
import pytest

from cfnseg.metrics.ranking import average_precision, top_errors


def test_average_precision_by_hand():
    assert average_precision(
        np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    ) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert np.isnan(average_precision(np.array([0.5]), np.array([False])))


def test_top_errors_by_hand():
    scores = np.array([[0.6, 0.3, 0.1], [0.5, 0.5, 0.0], [np.nan, 0.1, 0.2]])
    assert top_errors(scores, np.array([0, 1, 0]), best=2) == pytest.approx(
        (2 / 3, 1 / 3)
    )  # a tie counts against
    assert np.isnan(top_errors(scores[:0], np.array([], int))).all()
