"""What a data set has: sizes, shares, how thin its classes are, what the place explains."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from cfnseg.data.dataset import Dataset, read_truth
from cfnseg.data.labels import IGNORE
from cfnseg.data.loader import class_frequency, parallel
from cfnseg.errors import UserError
from cfnseg.metrics.place import Place, measure_place, named_sides, sampled
from cfnseg.progress import progress

MOST_MASKS = 2000  # read of a split; shares of more change in the third digit
MOST_MEASURED = 200  # masks whose objects are measured
FEW_OBJECTS = 10  # with fewer, a class says nothing of its width
THIN_PART = 0.25  # of a class's pixels lie in objects at most as wide as its width


class MaskFacts(NamedTuple):
    """What is kept of a mask.

    Attributes:
        size: (H, W).
        counts: (C,) int64 pixels of each class.
        cells: (24, 32) uint8 train ids, see `cfnseg.metrics.place.sampled`.
        objects: (n, 3) float64 class, pixels and width of each object; None if not measured.
    """

    size: tuple[int, int]
    counts: np.ndarray
    cells: np.ndarray
    objects: np.ndarray | None


@dataclass(frozen=True)
class Survey:
    """What `look` found. C classes, n masks.

    Attributes:
        images, val_images: of the splits.
        names: of the classes.
        sizes: (n, 2) int64 height and width of the training masks.
        counts: (n, C) int64 training pixels.
        widths: (C,) float64 pixels: a quarter of a class's pixels lie in objects at most as wide;
            nan for a class of fewer than 10 objects.
        place: what the place explains; None for fewer than 10 masks.
        mirrored: names of classes that are left and right, in pairs.
    """

    images: int
    val_images: int
    names: list[str]
    sizes: np.ndarray
    counts: np.ndarray
    widths: np.ndarray
    place: Place | None
    mirrored: list[tuple[str, str]]

    @property
    def shares(self) -> np.ndarray:
        """(C,) float64 share of the counted pixels."""
        return self.counts.sum(0) / self.counts.sum()

    @property
    def presence(self) -> np.ndarray:
        """(C,) float64 share of the images that have a class."""
        return (self.counts > 0).mean(0)

    @property
    def frequency(self) -> np.ndarray:
        """(C,) float64 share of a class in the images that have it; see `class_frequency`."""
        return class_frequency(self.counts)

    @property
    def size(self) -> tuple[int, int]:
        """Median height and width."""
        height, width = np.median(self.sizes, 0)
        return int(height), int(width)


def look(train: Dataset, val: Dataset, workers: int = 0) -> Survey:
    """Read up to 2,000 masks of each split, evenly spread, and measure objects in up to 200.

    Args:
        train, val: the splits.
        workers: processes that read.

    Raises:
        UserError: a mask that cannot be read, one class, or no counted pixel.
    """
    names = train.labels.names
    if len(names) < 2:
        raise UserError(f"the data has 1 class, {names[0]}; segmentation needs 2 or more")
    own, other = (
        _read(data, workers, what, most)
        for data, what, most in ((train, "training masks", MOST_MEASURED), (val, "val masks", 0))
    )
    counts = np.stack([facts.counts for facts in own])
    seen = [name for name, pixels in zip(names, counts.sum(0)) if pixels]
    if len(seen) < 2:
        raise UserError(
            f"{len(own)} training masks have {f'one class, {seen[0]}' if seen else 'no class'}; "
            f"segmentation needs 2 or more of {len(names)}. cfnseg doctor shows what the masks hold"
        )
    cells = [np.stack([facts.cells for facts in part]) for part in (own, other)]
    place = measure_place(cells[0], cells[1], len(names))
    swaps = [swap.classes for swap in place.swaps] if place else []
    pairs = [(names[a], names[b]) for a, b in swaps]
    return Survey(
        images=len(train.names),
        val_images=len(val.names),
        names=names,
        sizes=np.array([facts.size for facts in own]),
        counts=counts,
        widths=class_widths([f.objects for f in own if f.objects is not None], len(names)),
        place=place,
        mirrored=list(dict.fromkeys([*pairs, *named_sides(names)])),
    )


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` of the indices below ``count``, evenly spread, in order."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _read(dataset: Dataset, workers: int, what: str, measured: int) -> list[MaskFacts]:
    chosen = spread(len(dataset.names), MOST_MASKS)
    objects = {chosen[k] for k in spread(len(chosen), measured)} if measured else set()
    items = [(index, index in objects) for index in chosen]
    reading = parallel(functools.partial(_facts, dataset), items, min(workers, len(items)))
    return list(progress(reading, len(items), what, "masks"))


def _facts(dataset: Dataset, item: tuple[int, bool]) -> MaskFacts:
    index, measured = item
    mask, classes = read_truth(dataset, index), len(dataset.labels)
    counts = np.bincount(mask.ravel(), minlength=256)[:classes]
    objects = find_objects(mask) if measured else None
    return MaskFacts(mask.shape, counts, sampled(mask), objects)


def find_objects(mask: np.ndarray) -> np.ndarray:
    """Class, pixels and width of each 8-connected set of pixels of one class.

    Width = pixels / longer side of the bounding box: 3 for an upright pole of 3 x 60.

    Args:
        mask: (H, W) uint8 train ids; 255 is left out.

    Returns:
        (n, 3) float64.
    """
    rows = [np.empty((0, 3))]
    for c in np.unique(mask[mask != IGNORE]):
        same = (mask == c).astype(np.uint8)
        boxes = cv2.connectedComponentsWithStats(same, connectivity=8)[2][1:]  # 0: the background
        area = boxes[:, cv2.CC_STAT_AREA]
        longer = boxes[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(1)
        rows.append(np.stack([np.full(len(area), c), area, area / longer], 1))
    return np.concatenate(rows)


def class_widths(objects: list[np.ndarray], classes: int) -> np.ndarray:
    """`Survey.widths`, (C,), of the objects of several masks."""
    every, widths = np.concatenate([np.empty((0, 3)), *objects]), np.full(classes, np.nan)
    for c in range(classes):
        own = every[every[:, 0] == c]
        if len(own) >= FEW_OBJECTS:
            own = own[np.argsort(own[:, 2], kind="stable")]
            pixels = np.cumsum(own[:, 1])
            widths[c] = own[np.searchsorted(pixels, THIN_PART * pixels[-1]), 2]
    return widths
