"""Small pictures of the images that a net is most wrong and least sure about."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from cfnseg.report.pixels import address, photo, resized, size_within

SIDES = (320, 200, 128)  # longest sides to try, in pixels
BUDGET = 2_500_000  # bytes of all pictures together; with a thousand classes the rest of the page weighs 2 MB
TINY, ENLARGED = 96, 256  # an image with a smaller longest side grows to at least this


@dataclass(frozen=True)
class Thumbnail:
    """An image's row of report.json, its size in pixels and its picture as a data: address."""

    row: dict[str, Any]
    width: int
    height: int
    image: str


def pick(images: list[dict[str, Any]], each: int = 12) -> tuple[list[int], list[int]]:
    """Indices of the mistakes with the highest confidence and of the right images with the lowest, ties by name."""
    known = [i for i, row in enumerate(images) if row["confidence"] is not None]
    wrong = sorted((i for i in known if images[i]["rank"] > 1), key=lambda i: (-images[i]["confidence"], images[i]["name"]))
    right = sorted((i for i in known if images[i]["rank"] == 1), key=lambda i: (images[i]["confidence"], images[i]["name"]))
    return wrong[:each], right[:each]


def thumbnails(images: list[dict[str, Any]], image: Callable[[int], np.ndarray]) -> dict[str, list[Thumbnail]]:
    """Those of `pick` as "wrong" and "right"; ``images`` is that of report.json. Smaller ones where they weigh much."""
    wrong, right = pick(images)
    seen = {i: _fitted(image(i), SIDES[0]) for i in (*wrong, *right)}
    for side in SIDES:
        drawn = {i: thumbnail(images[i], seen[i], side) for i in seen}
        if sum(len(t.image) for t in drawn.values()) <= BUDGET:
            break
    return {"wrong": [drawn[i] for i in wrong], "right": [drawn[i] for i in right]}


def thumbnail(row: dict[str, Any], image: np.ndarray, side: int) -> Thumbnail:
    """One picture of an image (H, W, 3) uint8: a JPEG; a tiny one as a PNG whose pixels are repeated, as blur would hide them."""
    longest = max(image.shape[:2])
    if longest < TINY:
        times = math.ceil(ENLARGED / longest)
        image = image.repeat(times, 0).repeat(times, 1)
        return Thumbnail(row, image.shape[1], image.shape[0], address(Image.fromarray(image), "PNG"))
    image = _fitted(image, side)
    return Thumbnail(row, image.shape[1], image.shape[0], photo(image))


def _fitted(image: np.ndarray, side: int) -> np.ndarray:
    size = size_within(*image.shape[:2], side)
    return image if size == (image.shape[1], image.shape[0]) else resized(image, size)
