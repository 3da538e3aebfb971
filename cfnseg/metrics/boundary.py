"""Boundary IoU (Cheng et al., CVPR 2021, https://arxiv.org/abs/2103.16562) for many classes at once.

The boundary of a class is its own binary mask minus that mask eroded by d pixels: the pixels of the class within d pixels
(in any of the 8 directions) of another class, of an ignored pixel or of the image border. Boundary IoU is IoU of those.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from cfnseg.data.labels import IGNORE
from cfnseg.metrics.confusion import counts_of
from cfnseg.metrics.pairs import pair_counts


def boundary_width(height: int, width: int, ratio: float = 0.02) -> int:
    """Boundary width d in pixels: ``ratio`` of the image diagonal, at least 1."""
    return max(1, round(ratio * math.hypot(height, width)))


def boundary_counts(truth: np.ndarray, prediction: np.ndarray, classes: int, ratio: float = 0.02) -> np.ndarray:
    """Boundary pixels of one image, counted per class.

    Args:
        truth: (H, W) uint8 train ids; 255 is ignored.
        prediction: (H, W) uint8 train ids 0..classes-1, or 255: no class.
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
    counted = prediction | -(truth == IGNORE).view(np.uint8)  # 255 where the truth is ignored
    matrix = pair_counts(truth | _interior(truth, reach), counted | _interior(counted, reach))
    return counts_of(matrix)[:, :classes]


def _interior(mask: np.ndarray, reach: int) -> np.ndarray:
    """(H, W) uint8: 255 where a pixel survives the erosion of its class's mask, 0 in the boundary.

    It survives exactly if its whole (2d + 1)-square is of its class. The way to the nearest pixel of another class ends with
    a step from a pixel of its own class that touches the other one, so this is to say that no touching pixel is in its
    (2d - 1)-square, and their number there is a box sum, whose cost does not grow with d. The touching pixels are those whose
    3x3 minimum and maximum differ; the ring of 255 makes the border a boundary.
    """
    ringed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=IGNORE)
    square = np.ones((3, 3), np.uint8)
    touching = (cv2.erode(ringed, square) != cv2.dilate(ringed, square))[1:-1, 1:-1].view(np.uint8)
    near = cv2.boxFilter(touching, cv2.CV_32S, (2 * reach - 1, 2 * reach - 1), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return cv2.compare(near, 0, cv2.CMP_EQ)
