"""Boundary IoU (Cheng et al., CVPR 2021, https://arxiv.org/abs/2103.16562) for many classes at once.

The boundary of a class is its own binary mask minus that mask eroded by d pixels: the pixels of the class within d pixels
(in any of the 8 directions) of another class, of an ignored pixel or of the image border. Boundary IoU is IoU of those.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from cfnseg.data.labels import IGNORE


def boundary_width(height: int, width: int, ratio: float = 0.02) -> int:
    """Boundary width d in pixels: ``ratio`` of the image diagonal, at least 1."""
    return max(1, round(ratio * math.hypot(height, width)))


def boundary_counts(truth: np.ndarray, prediction: np.ndarray, classes: int, ratio: float = 0.02) -> np.ndarray:
    """Boundary pixels of one image, counted per class.

    Args:
        truth: (H, W) uint8 train ids; 255 is ignored.
        prediction: (H, W) uint8 train ids 0..classes-1.
        classes: C, at most 255.
        ratio: boundary width as a share of the image diagonal; 0.02 in the paper.

    Returns:
        (3, C) int64: pixels in both boundaries, in the truth's, in the prediction's. `cfnseg.metrics.confusion.iou_of`
        makes them IoU. Ignored pixels are in none of them and are taken out of both masks before the erosion, so that a
        prediction which is right wherever it counts scores 1 whatever it says under the ignored pixels.

    Raises:
        ValueError: shapes differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"prediction: expected shape {truth.shape}, got {prediction.shape}")
    reach = boundary_width(*truth.shape, ratio)
    counted = np.where(truth == IGNORE, IGNORE, prediction).astype(np.uint8)
    true_edge, predicted_edge = _edges(truth, reach), _edges(counted, reach)
    both = true_edge & predicted_edge & (truth == counted)
    counts = [np.bincount(ids, minlength=256)[:classes] for ids in (truth[both], truth[true_edge], counted[predicted_edge])]
    return np.stack(counts).astype(np.int64)


def _edges(mask: np.ndarray, reach: int) -> np.ndarray:
    """(H, W) bool: which pixels are in the boundary of their own class.

    A pixel survives the erosion of its class's mask exactly if its whole (2d + 1)-square is of that class, which is to say
    if minimum and maximum over the square agree: two filters for all classes instead of one erosion each. d erosions by
    3x3 ones, as the authors' code has it, are one by (2d + 1)-square ones. The ring of 255 makes the border a boundary.
    """
    ringed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=IGNORE)
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    # outside the ring cv2's default border takes part in neither filter
    return (cv2.erode(ringed, square) != cv2.dilate(ringed, square))[1:-1, 1:-1] & (mask != IGNORE)
