"""IoU by the size of segments, with COCO's limits of small and medium objects (Lin et al., ECCV 2014; cocodataset.org).

A segment is a set of pixels of one class that are connected in any of the 8 directions, ignored pixels taken out of truth and
prediction before. A true positive or missed pixel belongs to the size of its true segment, a false positive one to the size of
its predicted segment: IoU_s = TP_s / (TP_s + FN_s + FP_s). So every pixel counts once, and the sizes add up to the whole.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from cfnseg.data.labels import IGNORE

SIZES = ("small", "medium", "large")
LIMITS = (32**2, 96**2)  # pixels at which medium and large begin


def size_counts(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of one image by the size of their segment, counted per class.

    Args:
        truth: (H, W) uint8 train ids; 255 is ignored.
        prediction: (H, W) uint8 train ids 0..classes-1, or 255: no class.
        classes: C, at most 255.

    Returns:
        (3 `SIZES`, 3, C) int64: true positives, truth pixels, and true positives with false ones, in the form that
        `cfnseg.metrics.confusion.iou_of` takes. Their sum over sizes is `cfnseg.metrics.confusion.counts_of` the image.

    Raises:
        ValueError: shapes differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"prediction: expected shape {truth.shape}, got {prediction.shape}")
    counted = prediction | -(truth == IGNORE).view(np.uint8)
    right = (truth == counted).ravel()
    hit, missed = _by_size(truth, right)
    false = _by_size(counted, right)[1]
    return np.stack([hit, hit + missed, hit + false], 1)[..., :classes]


def _by_size(mask: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(2, 3, 256) int64 pixels of ``mask`` that are right and that are wrong, by size of their segment and by id."""
    starts, areas = segments(mask)
    cell = np.digitize(areas, LIMITS) * 256 + mask.ravel()[starts]
    hit = np.add.reduceat(right, starts, dtype=np.int64)
    wrong = np.diff(starts, append=mask.size) - hit
    return np.stack([np.bincount(cell, pixels, 768) for pixels in (hit, wrong)]).astype(np.int64).reshape(2, 3, 256)


def segments(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The segments of a label map, all ids at once.

    Args:
        mask: (H, W) uint8.

    Returns:
        (R,) int64 where each run of equal pixels along a row starts in the flat mask, and (R,) int64 pixels of its segment.
    """
    width = mask.shape[1]
    change = np.ones(mask.shape, bool)
    np.not_equal(mask[:, 1:], mask[:, :-1], out=change[:, 1:])
    starts = np.flatnonzero(change)
    above, below = change[:-1], change[1:]
    # runs that lie over one another meet first where one of them starts
    meet = np.flatnonzero((mask[:-1] == mask[1:]) & (above | below))
    pairs = [(meet, meet + width)]
    # runs that meet only at a corner both end there: otherwise they, or a run between, lie over one another too
    corner = above[:, 1:] & below[:, 1:]
    for slant, one, other in ((0, mask[:-1, :-1], mask[1:, 1:]), (1, mask[:-1, 1:], mask[1:, :-1])):
        y, x = np.divmod(np.flatnonzero(corner & (one == other)), max(width - 1, 1))
        pairs.append((y * width + x + slant, (y + 1) * width + x + 1 - slant))
    upper, lower = (np.searchsorted(starts, np.concatenate(ends), "right") - 1 for ends in zip(*pairs))
    graph = coo_matrix((np.ones(len(upper), bool), (upper, lower)), (len(starts), len(starts)))
    segment = connected_components(graph, directed=False)[1]
    return starts, np.bincount(segment, np.diff(starts, append=mask.size)).astype(np.int64)[segment]
