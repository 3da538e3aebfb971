"""The metric contract on maps counted by hand."""

import numpy as np
import pytest
import torch

from cfnseg.metrics.confusion import confusion_matrix, counts_of, device_confusion_matrix, scores_of


def test_counted_by_hand():
    truth = np.array([[0, 0, 1], [1, 255, 2]], np.uint8)
    prediction = np.array([[0, 1, 1], [1, 2, 0]], np.uint8)
    matrix = confusion_matrix(truth, prediction, 4)
    assert matrix[:3, :3].tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    scores = scores_of(counts_of(matrix))
    assert scores.iou[:3].tolist() == pytest.approx([1 / 3, 2 / 3, 0.0])
    assert np.isnan(scores.iou[3])
    assert scores.divisor == 3  # class 3 is nowhere and does not count
    assert scores.miou == pytest.approx(1 / 3)
    assert scores.pixel_accuracy == pytest.approx(3 / 5)
    assert scores.mean_accuracy == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_a_class_only_in_the_prediction_counts_as_zero():
    scores = scores_of(
        counts_of(
            confusion_matrix(np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]], np.uint8), 2)
        )
    )
    assert scores.iou.tolist() == [0.75, 0.0]
    assert scores.divisor == 2


def test_nothing_counted():
    scores = scores_of(
        counts_of(confusion_matrix(np.full((3, 3), 255, np.uint8), np.zeros((3, 3), np.uint8), 2))
    )
    assert scores.divisor == 0
    assert np.isnan([scores.miou, scores.pixel_accuracy, scores.mean_accuracy]).all()


def test_bad_ids_and_shapes_are_errors():
    with pytest.raises(ValueError, match="prediction up to 7"):
        confusion_matrix(np.zeros((2, 2), np.uint8), np.full((2, 2), 7, np.uint8), 3)
    with pytest.raises(ValueError, match="truth up to 9"):
        confusion_matrix(np.full((2, 2), 9, np.uint8), np.zeros((2, 2), np.uint8), 3)
    with pytest.raises(ValueError, match="prediction: expected shape"):
        confusion_matrix(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 3)
    maps = torch.zeros(2, 2, dtype=torch.uint8), torch.full((2, 2), 7, dtype=torch.uint8)
    for pair in (maps, maps[::-1]):
        with pytest.raises(
            ValueError, match=r"ids must be 0\.\.2 \(truth also 255\), 4 pixels are not"
        ):
            device_confusion_matrix(*pair, 3)
    with pytest.raises(ValueError, match="prediction: expected shape"):
        device_confusion_matrix(maps[0], torch.zeros(2, 3, dtype=torch.uint8), 3)


def test_more_pixels_than_are_counted_at_once():
    truth = np.ones((4100, 4100), np.uint8)  # cv2 counts in float32, which is exact up to 2^24
    truth[:1] = 0
    assert confusion_matrix(truth, np.zeros_like(truth), 2).tolist() == [
        [4100, 0],
        [4100 * 4099, 0],
    ]
