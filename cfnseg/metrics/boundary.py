"""Boundary IoU for many classes at once (Cheng et al., CVPR 2021, arxiv.org/abs/2103.16562).

The boundary of a class is its binary mask minus the mask eroded by d pixels: its pixels within d
pixels, in any of the 8 directions, of another class, an ignored pixel or the image border. Boundary
IoU is the IoU of the boundaries.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from cfnseg.data.labels import IGNORE
from cfnseg.metrics.confusion import counted_ids, counts_of, pair_counts


def boundary_width(height: int, width: int, ratio: float = 0.02) -> int:
    """Boundary width d in pixels: ``ratio`` of the image diagonal, at least 1."""
    return max(1, round(ratio * math.hypot(height, width)))


def boundary_counts(
    truth: np.ndarray, prediction: np.ndarray, classes: int, ratio: float = 0.02
) -> np.ndarray:
    """Boundary pixels of one image, counted per class.

    Args:
        truth: (H, W) uint8 train ids; 255 is ignored.
        prediction: (H, W) uint8 train ids 0..classes-1, or 255: no class.
        classes: C, at most 255.
        ratio: boundary width as a share of the image diagonal; 0.02 in the paper.

    Returns:
        (3, C) int64: pixels in both boundaries, in the truth's, in the prediction's, as
        `cfnseg.metrics.confusion.iou_of` takes them. Ignored pixels leave both masks before the
        erosion and are in no boundary. So a prediction that is right wherever it counts scores 1,
        whatever it has under the ignored pixels.

    Raises:
        ValueError: shapes differ.
    """
    counted = counted_ids(truth, prediction)
    height, width = truth.shape
    reach = boundary_width(height, width, ratio)
    matrix = pair_counts(truth | _interior(truth, reach), counted | _interior(counted, reach))
    return counts_of(matrix)[:, :classes]


def _interior(mask: np.ndarray, reach: int) -> np.ndarray:
    """(H, W) uint8: 255 where a pixel survives the erosion of its class's mask, 0 in the boundary.

    A pixel survives iff its (2d + 1)-square holds its class only. Call a pixel touching iff another
    class is in its 3x3 square, that is, iff the square's min and max differ. Every path to another
    class ends on a touching pixel of the own class. So a pixel survives iff its (2d - 1)-square
    holds no touching pixel. A box sum counts them, at a cost that does not grow with d. The ring of
    255 makes the image border a boundary.
    """
    ringed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=IGNORE)
    square = np.ones((3, 3), np.uint8)
    touching = (cv2.erode(ringed, square) != cv2.dilate(ringed, square))[1:-1, 1:-1].view(np.uint8)
    side = 2 * reach - 1
    near = cv2.boxFilter(
        touching, cv2.CV_32S, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    return cv2.compare(near, 0, cv2.CMP_EQ)
