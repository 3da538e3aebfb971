"""Drawing on images: overlays, sheets, and pictures that travel inside a page as data: addresses.

Images are RGB (H, W, 3) uint8, masks (H, W) uint8 train ids. Sides and sizes are in pixels.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image

from cfnseg.data.labels import IGNORE, LabelMap

BUDGET = 3_500_000  # bytes of a page's pictures; with the rest, the page stays under 5 MB
TINY, ENLARGED = 96, 256  # a thumbnail of a smaller longest side grows to at least ENLARGED
FIXED, BROKEN = (29, 95, 209), (226, 74, 40)  # blue and orange: distinct for colour-blind readers
T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """One picture of a page: heading, data: address or None, text in its place, and its size."""

    heading: str
    picture: str | None
    instead: str
    width: int
    height: int


def colored(mask: np.ndarray, labels: LabelMap) -> np.ndarray:
    """The colours (H, W, 3) uint8 of train ids (H, W) or layers (H, W, C).

    Where classes overlap it is the mean of their colours; ignored pixels and those of no class are
    white.
    """
    if mask.ndim == 2:
        return labels.colorize(mask)
    here = (mask == 1).astype(np.float32)
    colors = np.array([label.color for label in labels.labels], np.float32)
    count = here.sum(2, keepdims=True)
    return np.where(count > 0, here @ colors / np.maximum(count, 1), 255).astype(np.uint8)


def layers_overlay(
    image: np.ndarray, layers: np.ndarray, labels: LabelMap, strength: float = 0.45
) -> np.ndarray:
    """The image under the colours of `colored`, each class outlined in its own colour, so that
    classes below others stay visible; pixels of no class show the image alone."""
    some = (layers == 1).any(2)
    drawn = np.where(some[..., None], blend(image, colored(layers, labels), strength), image)
    width = max(1, round(max(image.shape[:2]) / 400))
    for c, label in enumerate(labels.labels):
        mask = (layers[..., c] == 1).astype(np.uint8)
        outlines = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(drawn, outlines, -1, label.color, width)
    return drawn


def overlay(
    image: np.ndarray, mask: np.ndarray, labels: LabelMap, strength: float = 0.55
) -> np.ndarray:
    """The image under the colours of its train ids; ignored pixels show the image alone."""
    mixed = blend(image, labels.colorize(mask), strength)
    mixed[mask == IGNORE] = image[mask == IGNORE]
    return mixed


def blend(image: np.ndarray, colors: np.ndarray, strength: float = 0.55) -> np.ndarray:
    """``strength`` x colours + (1 - ``strength``) x image, for two arrays of one shape."""
    return cv2.addWeighted(image, 1 - strength, colors, strength, 0)


def sheet(
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]], labels: LabelMap, height: int = 240
) -> np.ndarray:
    """One picture of many rows of image, truth and prediction, each ``height`` pixels high."""
    lines = []
    for image, truth, prediction in rows:
        masks = truth, np.where(truth == IGNORE, IGNORE, prediction).astype(np.uint8)
        panels = [image, *(colored(mask, labels) for mask in masks)]
        size = round(image.shape[1] * height / image.shape[0]), height
        lines.append(np.hstack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in panels]))
    widest = max(line.shape[1] for line in lines)
    padded = [((0, 4), (0, widest - line.shape[1]), (0, 0)) for line in lines]
    return np.vstack([np.pad(x, pad, constant_values=255) for x, pad in zip(lines, padded)])


def write_jpeg(path, image: np.ndarray, quality: int = 90) -> None:
    """Write an image as a JPEG file, whatever the file's suffix."""
    Image.fromarray(image).save(path, "JPEG", quality=quality)


def shrink(image: np.ndarray, side: int, ids: bool = False) -> np.ndarray:
    """The image with its longest side at most ``side``.

    Args:
        image: an image, (H, W) train ids, or (H, W, C) layers.
        side: smaller images stay as they are.
        ids: take the nearest neighbour, as ids and their colours have no mean.
    """
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if ids else cv2.INTER_AREA)
    return small.reshape(*small.shape[:2], *image.shape[2:])  # OpenCV drops a single layer's axis


def fitted(
    draw: Callable[[int], T], sides: Sequence[int], size: Callable[[T], int], budget: int = BUDGET
) -> T:
    """``draw(side)`` for the first side whose pictures fit the budget, else for the last.

    Args:
        draw: draws all pictures of a page with their longest side at most ``side``.
        sides: to try, the largest first.
        size: bytes of what ``draw`` returns.
        budget: bytes.
    """
    for side in sides:
        drawn = draw(side)
        if size(drawn) <= budget:
            break
    return drawn


def address(image: Image.Image, kind: str, **options: object) -> str:
    """A data: address. ``kind`` is JPEG or PNG, ``options`` are for pillow's save."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def photo(image: np.ndarray) -> str:
    """An image as a JPEG's data: address."""
    return address(Image.fromarray(image), "JPEG", quality=82)


def thumbnail(image: np.ndarray, side: int) -> tuple[str, int, int]:
    """Data: address, width and height of an image with its longest side at most ``side``.

    A tiny image becomes a PNG of repeated pixels, as blur would hide them.
    """
    longest = max(image.shape[:2])
    if longest < TINY:
        times = math.ceil(ENLARGED / longest)
        image = image.repeat(times, 0).repeat(times, 1)
        return address(Image.fromarray(image), "PNG"), image.shape[1], image.shape[0]
    image = shrink(image, side)
    return photo(image), image.shape[1], image.shape[0]


def mask_picture(mask: np.ndarray, labels: LabelMap, clear: bool = False) -> str:
    """A mask as a palette PNG, as JPEG would blur every edge.

    Args:
        mask: train ids, or layers (H, W, C), whose pixels of no class are as ignored ones.
        labels: the classes, for their colours.
        clear: ignored pixels are transparent; otherwise white.
    """
    if mask.ndim == 3:
        seen = (
            255 * (mask == 1).any(2, keepdims=True) if clear else np.full_like(mask[..., :1], 255)
        )
        pixels = np.concatenate([colored(mask, labels), seen.astype(np.uint8)], 2)
        return address(Image.fromarray(pixels), "PNG", optimize=True)
    colors = np.full((256, 3), 255, np.uint8)
    colors[: len(labels)] = [label.color for label in labels.labels]
    return _palette_png(mask, colors, **({"transparency": IGNORE} if clear else {}))


def error_layer(truth: np.ndarray, prediction: np.ndarray) -> str:
    """A palette PNG to lay over an image: right dark, wrong red, ignored white.

    Of layers a pixel is right if each class is, and ignored if each is.
    """
    marks = np.array([[15, 18, 24], [235, 64, 42], [255, 255, 255]], np.uint8)
    kinds = np.where(truth == IGNORE, 2, truth != prediction).astype(np.uint8)
    if kinds.ndim == 3:
        kinds = np.where((kinds == 2).all(2), 2, (kinds == 1).any(2)).astype(np.uint8)
    return _palette_png(kinds, marks, transparency=bytes([165, 225, 150]))


def changes(image: np.ndarray, fixed: np.ndarray, broken: np.ndarray) -> str:
    """The image in pale gray, (H, W) bool ``fixed`` in blue and ``broken`` in orange."""
    gray = (160 + cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) * 0.35).astype(np.uint8)
    drawn = cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)
    drawn[fixed], drawn[broken] = FIXED, BROKEN
    # 4:4:4 chroma, so that a thin edge keeps its colour
    return address(Image.fromarray(drawn), "JPEG", quality=85, subsampling=0)


def _palette_png(mask: np.ndarray, colors: np.ndarray, **options: object) -> str:
    image = Image.fromarray(mask, mode="P")
    image.putpalette(colors.tobytes())
    return address(image, "PNG", optimize=True, **options)
