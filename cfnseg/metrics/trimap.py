"""IoU in bands around the true boundaries.

Sources: Kohli et al., IJCV 2009; Kraehenbuehl and Koltun, NIPS 2011; Chen et al., DeepLab.

A counted pixel is in the band of width w iff a counted pixel of another true class is at most w
away in chessboard distance. Ignored pixels count nowhere, but distance runs across them: VOC's
5-pixel outlines leave the bands below 5 empty. The image border is no boundary, and neither is the
border of an ignored region inside one class. The bands are nested.
"""

from __future__ import annotations

import cv2
import numpy as np

from cfnseg.metrics.confusion import counted_ids, pair_counts

WIDTHS = (1, 2, 4, 8, 16, 32)  # pixels, to either side of a boundary


def trimap_counts(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of one image within each of `WIDTHS` of a true boundary, counted per class.

    Args:
        truth: (H, W) uint8 train ids; 255 is ignored.
        prediction: (H, W) uint8 train ids 0..classes-1, or 255: no class.
        classes: C, at most 255.

    Returns:
        (widths, 3, C) int64: true positives, truth and predicted pixels, as
        `cfnseg.metrics.confusion.iou_of` takes them.

    Raises:
        ValueError: shapes differ.
    """
    counted, beyond, bands = counted_ids(truth, prediction), _beyond(truth), len(WIDTHS)
    right = (truth == prediction).view(np.uint8)
    by_right = pair_counts(2 * beyond + right, truth)[: 2 * bands].reshape(bands, 2, 256)
    wrong, hit = by_right.swapaxes(0, 1)
    predicted = pair_counts(beyond, counted)[:bands]
    return np.cumsum(np.stack([hit, wrong + hit, predicted], 1), 0)[..., :classes]


def _beyond(truth: np.ndarray) -> np.ndarray:
    """(H, W) uint8: how many of `WIDTHS` are too narrow to reach a pixel; undefined where ignored.

    A square holds a second class iff its min and max differ. Ignored pixels change neither: 255 is
    never the min, and 255 + 1 = 0 is never the max of ids + 1. Filters in sequence widen a square.
    """
    low, high, beyond = truth, truth + np.uint8(1), np.zeros_like(truth)
    for step in np.diff(WIDTHS, prepend=0):
        square = np.ones((2 * step + 1, 2 * step + 1), np.uint8)
        low, high = (
            cv2.erode(low, square),
            cv2.dilate(high, square),
        )  # pixels outside change nothing
        beyond += low + np.uint8(1) == high
    return beyond
