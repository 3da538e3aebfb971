"""The page's pictures: the images that went worst and best, small enough to travel inside the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from cfnseg.data.labels import IGNORE, LabelMap
from cfnseg.report.pixels import address, photo, resized, size_within

Picture = tuple[np.ndarray, np.ndarray, np.ndarray]  # RGB (H, W, 3), truth and prediction (H, W) train ids, all uint8
SIDES = (720, 480, 320, 160)  # longest sides to try
BUDGET = 3_500_000  # bytes of all pictures together: with the rest, the page stays under 5 MB
VEIL, WRONG, SKIPPED = 0, 1, 2


@dataclass(frozen=True)
class Panel:
    """One image of the gallery: its row of report.json, its size in pixels and four layers as data: addresses."""

    row: dict[str, Any]
    width: int
    height: int
    image: str
    truth: str
    prediction: str
    errors: str

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return len(self.image) + len(self.truth) + len(self.prediction) + len(self.errors)


def choose(images: list[dict[str, Any]], each: int = 4) -> tuple[list[int], list[int]]:
    """Indices of the worst (worst first) and the best (best first) images by their own mIoU, ties by name.

    Images without a counted pixel are left out, and none is in both lists.
    """
    order = sorted((i for i, row in enumerate(images) if row["miou"] is not None),
                   key=lambda i: (images[i]["miou"], images[i]["name"]))
    worst = order[: min(each, (len(order) + 1) // 2)]
    best = sorted(order[len(worst):], key=lambda i: (-images[i]["miou"], images[i]["name"]))
    return worst, best[:each]


def gallery(images: list[dict[str, Any]], picture: Callable[[int], Picture], labels: LabelMap) -> dict[str, list[Panel]]:
    """The panels of the worst and the best images; ``images`` is that of report.json. Smaller ones where they weigh much."""
    worst, best = choose(images)
    small = {i: shrink(picture(i), SIDES[0]) for i in (*worst, *best)}
    for side in SIDES:
        panels = {i: panel(images[i], shrink(small[i], side), labels) for i in small}
        if sum(p.size for p in panels.values()) <= BUDGET:
            break
    return {"worst": [panels[i] for i in worst], "best": [panels[i] for i in best]}


def shrink(picture: Picture, side: int) -> Picture:
    """The picture with its longest side at most ``side`` pixels; masks by nearest neighbour, as ids have no mean."""
    image, truth, prediction = picture
    size = size_within(*truth.shape, side)
    if size == truth.shape[::-1]:
        return picture
    truth, prediction = (cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) for mask in (truth, prediction))
    return resized(image, size), truth, prediction


def panel(row: dict[str, Any], picture: Picture, labels: LabelMap) -> Panel:
    """One panel: the image as a JPEG, and palette PNGs to lay over it (masks as JPEG would blur at every edge)."""
    image, truth, prediction = picture
    errors = np.where(truth == prediction, VEIL, WRONG).astype(np.uint8)
    errors[truth == IGNORE] = SKIPPED
    colors = np.full((256, 3), 255, np.uint8)
    colors[: len(labels)] = [label.color for label in labels.labels]
    seen = np.full(256, 255, np.uint8)
    seen[IGNORE] = 0
    marks = np.array([[15, 18, 24], [235, 64, 42], [255, 255, 255]], np.uint8)
    return Panel(row, truth.shape[1], truth.shape[0], photo(image), _layer(truth, colors, seen), _layer(prediction, colors, seen),
                 _layer(errors, marks, np.array([165, 225, 150], np.uint8)))


def _layer(mask: np.ndarray, colors: np.ndarray, alpha: np.ndarray) -> str:
    """A palette PNG with an alpha (0..255) per id, as a data: address."""
    image = Image.fromarray(mask, mode="P")
    image.putpalette(colors.tobytes())
    return address(image, "PNG", transparency=alpha.tobytes(), optimize=True)
