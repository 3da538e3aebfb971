"""Everything that is counted beside the confusion matrix for a final report: boundaries, trimaps and sizes of segments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cfnseg.metrics.boundary import boundary_counts
from cfnseg.metrics.sizes import SIZES, size_counts
from cfnseg.metrics.trimap import WIDTHS, trimap_counts


def count_details(truth: np.ndarray, prediction: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count one image.

    Args:
        truth: (H, W) uint8 train ids; 255 is ignored.
        prediction: (H, W) uint8 train ids 0..classes-1, or 255: no class.
        classes: C, at most 255.

    Returns:
        int64 (3, C) of `cfnseg.metrics.boundary`, (widths, 3, C) of `cfnseg.metrics.trimap` and (sizes, 3, C) of
        `cfnseg.metrics.sizes`.

    Raises:
        ValueError: shapes differ.
    """
    return tuple(count(truth, prediction, classes) for count in (boundary_counts, trimap_counts, size_counts))


@dataclass(frozen=True)
class Details:
    """The counts of a split, filled image by image; parts that several processes filled add up to the whole.

    Attributes:
        boundary: (images, 3, C) int64 boundary pixels: in both, in the truth's, in the prediction's.
        trimap: (widths, 3, C) int64 true positives, truth and predicted pixels in each band, over all images.
        sizes: (sizes, 3, C) int64, the same of each size of segments.
    """

    boundary: np.ndarray
    trimap: np.ndarray
    sizes: np.ndarray

    @classmethod
    def zeros(cls, images: int, classes: int) -> Details:
        """Nothing counted yet."""
        return cls(*(np.zeros((n, 3, classes), np.int64) for n in (images, len(WIDTHS), len(SIZES))))

    def add(self, index: int, counts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        """Put in what `count_details` gave for image ``index``."""
        self.boundary[index] = counts[0]
        self.trimap[:] += counts[1]
        self.sizes[:] += counts[2]

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The three arrays."""
        return self.boundary, self.trimap, self.sizes
