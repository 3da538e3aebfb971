"""IoU in a band around the true boundaries (Kohli et al., IJCV 2009; Kraehenbuehl and Koltun, NIPS 2011; Chen et al., DeepLab).

A pixel is in the band of width w if it counts and a counted pixel of another true class is at most w away, in any of the 8
directions (chessboard distance). The image border is no boundary. An ignored strip between two classes, such as the outline
of an object in VOC, is looked across: its width is part of the distance, so that VOC's bands fill only above its 5 pixels.
The border of an ignored region with one class around it is no boundary. Ignored pixels count nowhere. The bands are nested.
"""

from __future__ import annotations

import cv2
import numpy as np

from cfnseg.data.labels import IGNORE
from cfnseg.metrics.pairs import pair_counts

WIDTHS = (1, 2, 4, 8, 16, 32)  # pixels, to either side of a boundary


def trimap_counts(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of one image within each of `WIDTHS` of a true boundary, counted per class.

    Args:
        truth: (H, W) uint8 train ids; 255 is ignored.
        prediction: (H, W) uint8 train ids 0..classes-1, or 255: no class.
        classes: C, at most 255.

    Returns:
        (widths, 3, C) int64: true positives, truth and predicted pixels, as `cfnseg.metrics.confusion.iou_of` takes them.

    Raises:
        ValueError: shapes differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"prediction: expected shape {truth.shape}, got {prediction.shape}")
    beyond = _beyond(truth)
    right = (truth == prediction).view(np.uint8)
    wrong, hit = pair_counts(2 * beyond + right, truth)[: 2 * len(WIDTHS)].reshape(len(WIDTHS), 2, 256).swapaxes(0, 1)
    counted = prediction | -(truth == IGNORE).view(np.uint8)
    predicted = pair_counts(beyond, counted)[: len(WIDTHS)]
    return np.cumsum(np.stack([hit, wrong + hit, predicted], 1), 0)[..., :classes]


def _beyond(truth: np.ndarray) -> np.ndarray:
    """(H, W) uint8: how many of `WIDTHS` are too narrow to reach a pixel; of no meaning where it is ignored.

    Another class is in a square exactly if the square's least and greatest class differ. 255, ignored, is never the least,
    and one higher it is 0, never the greatest. A filter of the filtered map is one by a wider square.
    """
    least, greatest, beyond = truth, truth + np.uint8(1), np.zeros_like(truth)
    for step in np.diff(WIDTHS, prepend=0):
        square = np.ones((2 * step + 1, 2 * step + 1), np.uint8)
        # cv2's default border takes part in neither filter
        least, greatest = cv2.erode(least, square), cv2.dilate(greatest, square)
        beyond += least + np.uint8(1) == greatest
    return beyond
