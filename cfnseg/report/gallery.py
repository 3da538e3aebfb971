"""Which images the pages show, drawn small enough to travel inside the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfnseg.data.labels import LabelMap
from cfnseg.drawing import error_layer, fitted, mask_picture, photo, shrink, thumbnail

# RGB (H, W, 3), truth and prediction (H, W) train ids or (H, W, C) layers, all uint8
Picture = tuple[np.ndarray, np.ndarray, np.ndarray]
SIDES = (720, 480, 320, 160)  # longest sides of panels to try
SMALL_SIDES = (320, 200, 128)  # and of tiles
SMALL_BUDGET = 2_500_000  # bytes of all tiles; with 1,000 classes the rest weighs 2 MB


@dataclass(frozen=True)
class Tile:
    """An image's row of report.json, its picture as a data: address, and its size in pixels."""

    row: dict[str, Any]
    image: str
    width: int
    height: int


def choose(images: list[dict[str, Any]], each: int = 4) -> tuple[list[int], list[int]]:
    """Indices of the worst (worst first) and the best (best first) images by mIoU, ties by name.

    Images without a counted pixel are left out. No image is in both lists.
    """
    order = sorted(
        (i for i, row in enumerate(images) if row["miou"] is not None),
        key=lambda i: (images[i]["miou"], images[i]["name"]),
    )
    worst = order[: min(each, (len(order) + 1) // 2)]
    best = sorted(order[len(worst) :], key=lambda i: (-images[i]["miou"], images[i]["name"]))
    return worst, best[:each]


def gallery(
    images: list[dict[str, Any]], picture: Callable[[int], Picture], labels: LabelMap
) -> dict[str, list[dict[str, Any]]]:
    """The pictures of the worst and the best images.

    Args:
        images: of report.json.
        picture: index -> picture of an image.
        labels: the classes, for their colours.

    Returns:
        "worst" and "best": row (of report.json), width, height (pixels), and the data: addresses
        of image, truth, prediction and errors, to lay over each other.
    """
    worst, best = choose(images)
    small = {i: _shrunk(picture(i), SIDES[0]) for i in (*worst, *best)}

    def draw(side: int) -> dict[int, dict[str, Any]]:
        return {i: _panel(images[i], _shrunk(found, side), labels) for i, found in small.items()}

    panels = fitted(
        draw,
        SIDES,
        lambda drawn: sum(
            len(p[layer])
            for p in drawn.values()
            for layer in ("image", "truth", "prediction", "errors")
        ),
    )
    return {"worst": [panels[i] for i in worst], "best": [panels[i] for i in best]}


def _shrunk(picture: Picture, side: int) -> Picture:
    image, truth, prediction = picture
    return shrink(image, side), shrink(truth, side, ids=True), shrink(prediction, side, ids=True)


def _panel(row: dict[str, Any], picture: Picture, labels: LabelMap) -> dict[str, Any]:
    image, truth, prediction = picture
    return {
        "row": row,
        "width": truth.shape[1],
        "height": truth.shape[0],
        "image": photo(image),
        "truth": mask_picture(truth, labels, clear=True),
        "prediction": mask_picture(prediction, labels, clear=True),
        "errors": error_layer(truth, prediction),
    }


def choose_tiles(images: list[dict[str, Any]], each: int = 12) -> tuple[list[int], list[int]]:
    """Indices of the most confident mistakes and the least confident right images, ties by name."""
    known = [i for i, row in enumerate(images) if row["confidence"] is not None]
    wrong, right = (
        [i for i in known if (images[i]["rank"] > 1) == mistake] for mistake in (True, False)
    )
    wrong.sort(key=lambda i: (-images[i]["confidence"], images[i]["name"]))
    right.sort(key=lambda i: (images[i]["confidence"], images[i]["name"]))
    return wrong[:each], right[:each]


def tiles(
    images: list[dict[str, Any]], image: Callable[[int], np.ndarray]
) -> dict[str, list[Tile]]:
    """Tiles of `choose_tiles` as "wrong" and "right".

    Args:
        images: of report.json.
        image: index -> RGB (H, W, 3) uint8.
    """
    wrong, right = choose_tiles(images)
    small = {i: shrink(image(i), SMALL_SIDES[0]) for i in (*wrong, *right)}

    def draw(side: int) -> dict[int, Tile]:
        return {i: Tile(images[i], *thumbnail(small[i], side)) for i in small}

    drawn = fitted(
        draw, SMALL_SIDES, lambda found: sum(len(t.image) for t in found.values()), SMALL_BUDGET
    )
    return {"wrong": [drawn[i] for i in wrong], "right": [drawn[i] for i in right]}
