"""What every annotation format is read into: the regions of an image, and the mask they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

FAR, MARGIN = 1e5, 2.0  # pixels


@dataclass(frozen=True, eq=False)
class Region:
    """One annotated region: polygons, or pixels.

    Coordinates are in pixels, x to the right and y down; (0, 0) is the top left *corner* of the
    image, (W, H) its bottom right one.

    Attributes:
        name: of the class, as in the file.
        polygons: each (n, 2) float64 x, y; the region is their union. Fewer than 3 points: empty.
        holes: polygons whose pixels are not in the region.
        pixels: (h, w) bool, in place of polygons.
        corner: (x, y) of the top left pixel of ``pixels``; it may lie outside the image.
        ignored: the pixels have no class, as those of COCO's crowds.
    """

    name: str
    polygons: Sequence[np.ndarray] = ()
    holes: Sequence[np.ndarray] = ()
    pixels: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)
    ignored: bool = False

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """(H, W) bool: the region's pixels in an image of ``size``; by pycocotools for polygons."""
        if self.pixels is None:
            return _filled(self.polygons, size) & ~_filled(self.holes, size)
        mask = np.zeros(size, bool)
        (x, y), (h, w) = self.corner, self.pixels.shape
        rows, columns = slice(max(0, y), max(0, y + h)), slice(max(0, x), max(0, x + w))
        part = mask[rows, columns]
        part[:] = self.pixels[max(0, -y) :, max(0, -x) :][: part.shape[0], : part.shape[1]]
        return mask


def _filled(polygons: Iterable[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The union of polygons, (H, W) bool."""
    near = [_near(np.asarray(p, np.float64), size) for p in polygons]
    rings = [p.ravel().tolist() for p in near if len(p) >= 3]
    if not rings:
        return np.zeros(size, bool)
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, *size))).astype(bool)


def _near(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A polygon with points far outside the image cut to the image and a margin (Sutherland and
    Hodgman 1974): pycocotools draws every pixel of an edge, and dies of 1e9."""
    if not len(polygon) or np.abs(polygon).max() < FAR:
        return polygon
    for axis, limit in ((0, size[1]), (1, size[0])):
        for bound, side in ((-MARGIN, 1.0), (limit + MARGIN, -1.0)):
            kept: list[np.ndarray] = []
            inside = side * (polygon[:, axis] - bound)
            for i, point in enumerate(polygon):
                if (inside[i - 1] < 0) != (inside[i] < 0):
                    share = inside[i] / (inside[i] - inside[i - 1])
                    kept.append(point + share * (polygon[i - 1] - point))
                if inside[i] >= 0:
                    kept.append(point)
            polygon = np.array(kept).reshape(-1, 2)
            if not len(polygon):
                return polygon
    return polygon


class LazyRegions(Sequence[Region]):
    """Regions that are made whenever they are iterated, as pixels of all images would fill memory.

    Args:
        load: makes them; picklable (a module's function or `functools.partial` of one).
    """

    def __init__(self, load: Callable[[], list[Region]]) -> None:
        self.load = load

    def __iter__(self) -> Iterator[Region]:
        return iter(self.load())

    def __len__(self) -> int:
        return len(self.load())

    def __getitem__(self, index):
        return self.load()[index]


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """The annotation of one image.

    Attributes:
        path: of the photograph; it may be missing on the disk.
        regions: of the image; see ``ordered``.
        files: that say so, one or more; one file may have all images.
        size: (H, W) that the file says, None if it says nothing.
        ordered: the regions are in drawing order: of two that overlap the later is on top. Without
            an order in the format, the smaller is on top.
        split: that the format names ("train", "val", ...), "" = none.
        embedded: reads the photograph's file from the export, for one that is missing on the disk;
            picklable.
    """

    path: Path
    regions: Sequence[Region]
    files: tuple[Path, ...]
    size: tuple[int, int] | None = None
    ordered: bool = False
    split: str = ""
    embedded: Callable[[], bytes] | None = None


@dataclass(frozen=True, eq=False)
class Annotations:
    """What an export says.

    Attributes:
        names: of the classes, in the format's own order.
        images: the annotated images.
        background: the class of pixels in no region; None: they are ignored.
        colors: by class name, (r, g, b) in 0..255, where the format has colours.
        notes: what was skipped and why, a line each.
    """

    names: list[str]
    images: list[AnnotatedImage]
    background: str | None = "background"
    colors: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def draw(
    image: AnnotatedImage, size: tuple[int, int], ids: dict[str, int], background: int, ignore: int
) -> np.ndarray:
    """The mask of an image.

    Args:
        image: its regions; those of classes that ``ids`` lacks are left out.
        size: (H, W) of the photograph.
        ids: by class name, 0..65535.
        background: the id of pixels in no region.
        ignore: the id of ignored regions. They never cover a region with a class.

    Returns:
        (H, W) uint16.
    """
    mask = np.full(size, background, np.uint16)
    known = [r for r in image.regions if r.ignored or r.name in ids]
    drawn = [(region, region.mask(size)) for region in known]
    if not image.ordered:
        drawn.sort(key=lambda pair: -int(pair[1].sum()))
    drawn.sort(key=lambda pair: not pair[0].ignored)
    for region, where in drawn:
        mask[where] = ignore if region.ignored else ids[region.name]
    return mask
