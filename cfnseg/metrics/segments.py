"""IoU by the size of segments, and all counts for a final report.

The limits of small and medium segments are COCO's (Lin et al., ECCV 2014; cocodataset.org). A
segment is an 8-connected set of pixels of one class, without the ignored pixels. A true positive or
missed pixel has the size of its true segment, a false positive the size of its predicted segment:
IoU_s = TP_s / (TP_s + FN_s + FP_s). So every pixel counts once, and the sizes add up to the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from cfnseg.metrics.boundary import boundary_counts
from cfnseg.metrics.confusion import counted_ids
from cfnseg.metrics.trimap import WIDTHS, trimap_counts

SIZES = ("small", "medium", "large")
LIMITS = (32**2, 96**2)  # pixels at which medium and large begin


def size_counts(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of one image by the size of their segment, counted per class.

    Args:
        truth: (H, W) uint8 train ids; 255 is ignored.
        prediction: (H, W) uint8 train ids 0..classes-1, or 255: no class.
        classes: C, at most 255.

    Returns:
        (3 `SIZES`, 3, C) int64: true positives, truth pixels, true and false positives, as
        `cfnseg.metrics.confusion.iou_of` takes them. Their sum over sizes is the image's
        `cfnseg.metrics.confusion.counts_of`.

    Raises:
        ValueError: shapes differ.
    """
    counted = counted_ids(truth, prediction)
    right = (truth == counted).ravel()
    hit, missed = _by_size(truth, right)
    false = _by_size(counted, right)[1]
    return np.stack([hit, hit + missed, hit + false], 1)[..., :classes]


def _by_size(mask: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(2, 3, 256) int64 right and wrong pixels of ``mask``, by size of segment and by id."""
    starts, areas = segments(mask)
    cell = np.digitize(areas, LIMITS) * 256 + mask.ravel()[starts]
    hit = np.add.reduceat(right, starts, dtype=np.int64)
    wrong = np.diff(starts, append=mask.size) - hit
    counts = [np.bincount(cell, pixels, 3 * 256) for pixels in (hit, wrong)]
    return np.stack(counts).astype(np.int64).reshape(2, 3, 256)


def segments(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The segments of a label map, all ids at once.

    Args:
        mask: (H, W) uint8.

    Returns:
        (R,) int64 start of each run of equal pixels along a row, in the flat mask, and (R,) int64
        pixels of the run's segment.
    """
    width = mask.shape[1]
    change = np.ones(mask.shape, bool)
    np.not_equal(mask[:, 1:], mask[:, :-1], out=change[:, 1:])
    starts = np.flatnonzero(change)
    above, below = change[:-1], change[1:]
    # vertical neighbours: two runs that overlap meet first where one of them starts
    meet = np.flatnonzero((mask[:-1] == mask[1:]) & (above | below))
    pairs = [(meet, meet + width)]
    # diagonal neighbours: two runs that touch at a corner only both end there, else they overlap
    corner = above[:, 1:] & below[:, 1:]
    for slant, one, other in ((0, mask[:-1, :-1], mask[1:, 1:]), (1, mask[:-1, 1:], mask[1:, :-1])):
        y, x = np.divmod(np.flatnonzero(corner & (one == other)), max(width - 1, 1))
        pairs.append((y * width + x + slant, (y + 1) * width + x + 1 - slant))
    upper, lower = (
        np.searchsorted(starts, np.concatenate(ends), "right") - 1 for ends in zip(*pairs)
    )
    graph = coo_matrix((np.ones(len(upper), bool), (upper, lower)), (len(starts), len(starts)))
    segment = connected_components(graph, directed=False)[1]
    return starts, np.bincount(segment, np.diff(starts, append=mask.size)).astype(np.int64)[segment]


def count_details(
    truth: np.ndarray, prediction: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The counts of one image that `Details` keeps; arguments and errors as in `size_counts`.

    Returns:
        int64 (3, C) of `boundary_counts`, (widths, 3, C) of `trimap_counts` and (sizes, 3, C) of
        `size_counts`.
    """
    maps = truth, prediction, classes
    return boundary_counts(*maps), trimap_counts(*maps), size_counts(*maps)


@dataclass(frozen=True)
class Details:
    """The counts of a split, filled image by image; parts from several processes add up.

    Attributes:
        boundary: (images, 3, C) int64 pixels in both boundaries, in the truth's, in the
            prediction's.
        trimap: (widths, 3, C) int64 true positives, truth and predicted pixels of each band, over
            all images.
        sizes: (sizes, 3, C) int64, the same of each size of segments.
    """

    boundary: np.ndarray
    trimap: np.ndarray
    sizes: np.ndarray

    @classmethod
    def zeros(cls, images: int, classes: int) -> Details:
        """Nothing counted yet."""
        rows = images, len(WIDTHS), len(SIZES)
        return cls(*(np.zeros((n, 3, classes), np.int64) for n in rows))

    def add(self, index: int, counts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        """Put in the `count_details` of image ``index``."""
        self.boundary[index] = counts[0]
        self.trimap[:] += counts[1]
        self.sizes[:] += counts[2]

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The three arrays."""
        return self.boundary, self.trimap, self.sizes
