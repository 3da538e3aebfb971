"""Training samples: cut a window, resize, mirror, jitter and pad it."""

from __future__ import annotations

import functools
import importlib.metadata
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from cfnseg.config import Data
from cfnseg.data.bands import Bands
from cfnseg.data.labels import IGNORE
from cfnseg.errors import UserError
from cfnseg.shipped import load_module


def _refuse_agpl() -> None:
    """Refuse albumentationsx (AGPL), which is imported as albumentations too."""
    try:
        version = importlib.metadata.version("albumentationsx")
    except importlib.metadata.PackageNotFoundError:
        return
    raise UserError(
        f"albumentationsx {version} (AGPL) is installed and shadows albumentations; "
        "pip uninstall albumentationsx && pip install --force-reinstall albumentations==2.0.8"
    )


_refuse_agpl()
import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no network access at import
import albumentations as A


class Sample(NamedTuple):
    """One training sample.

    Attributes:
        image: (3, h, w) uint8 RGB, or (C, h, w) of `Bands`.
        mask: (h, w) uint8 train ids, 255 = ignore, also for padding; or layers (h, w, C), see
            `cfnseg.data.dataset.Layers`.
        region: (4,) float32 x0, y0, x1, y1 of the crop in the full image, which is mirrored if the
            crop is.
        name: the image's name.
    """

    image: np.ndarray
    mask: np.ndarray
    region: np.ndarray
    name: str


class Span(NamedTuple):
    """A crop along one axis.

    Attributes:
        start, stop: the source pixels of the cut.
        factor: resized pixels per source pixel.
        before: padding in front, in pixels.
        filled: pixels of the crop without padding.
    """

    start: int
    stop: int
    factor: float
    before: int
    filled: int


def draw_span(length: int, crop: int, scale: float, place: float) -> Span:
    """Place a crop along one axis of an image that is resized by ``scale``.

    A crop starts at an integer source pixel, so the resized cut has the phase of the resized image.
    An image that resizes to less than the crop is padded.

    Args:
        length: source pixels, >= 1.
        crop: pixels of the crop.
        scale: resize factor. Raised to leave at least one pixel; rounded to 1 where that moves no
            pixel of the crop by more than one (cv2 copies if the rounded sizes are equal).
        place: [0, 1), from the first possible place to the last.
    """
    scale = _usable(length, crop, scale)
    size = max(1, int(length * scale))
    if size < crop:
        return Span(0, length, size / length, int(place * (crop - size + 1)), size)
    start = int(place * (int(max(0.0, length - crop / scale)) + 1))
    # one more source pixel: the crop's last pixels blend with it
    return Span(start, min(length, start + math.ceil(crop / scale) + 1), scale, 0, crop)


def _usable(length: int, crop: int, scale: float) -> float:
    """The scale that `draw_span` takes in place of ``scale``."""
    return max(scale, 1 / length) if abs(scale - 1) * (crop + 2) > 1 else 1.0


def aimed(length: int, crop: int, scale: float, at: int, draw: float) -> float:
    """The place for `draw_span` at which a crop contains a source pixel.

    Args:
        length, crop, scale: see `draw_span`.
        at: the pixel, 0 to length - 1.
        draw: [0, 1), from the first such crop to the last.
    """
    reach = crop / _usable(length, crop, scale)
    last = int(max(0.0, length - reach))
    low, high = max(0, min(last, at - int(reach) + 1)), min(last, at)
    return (low + int(draw * (high - low + 1)) + 0.5) / (last + 1)


def resize(window: np.ndarray, rows: Span, columns: Span) -> np.ndarray:
    """Resize the cut of an (H, W, C) image of a type in `cfnseg.data.bands.TYPES` to
    (rows.filled, columns.filled, C).

    Area averages if it shrinks, else bilinear; pixel centres aligned. Equals the same window of the
    resized full image up to rounding (1 of 255). Exception: if it grows, the first half source
    pixel repeats the window's edge.
    """
    if rows.factor == columns.factor == 1:
        return window[: rows.filled, : columns.filled]
    smaller = min(rows.factor, columns.factor) < 1
    channels = window.shape[2]
    # by factors, not by size: cv2 keeps the phase where the crop covers a fraction of a pixel
    resized = [
        cv2.resize(
            window[..., first : first + 4],  # OpenCV averages areas of up to four channels
            None,
            fx=columns.factor,
            fy=rows.factor,
            interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR,
        )[: rows.filled, : columns.filled]
        for first in range(0, channels, 4)
    ]
    # OpenCV drops the axis of a single channel
    return resized[0] if channels in (2, 3, 4) else np.dstack(resized)


def resize_mask(mask: np.ndarray, rows: Span, columns: Span) -> np.ndarray:
    """The same window of an (H, W) mask or of layers; each pixel takes the id at its centre."""
    y, x = (
        np.minimum(s.start + ((np.arange(s.filled) + 0.5) / s.factor).astype(int), s.stop - 1)
        for s in (rows, columns)
    )
    return np.take(mask[y, columns.start : columns.stop], x - columns.start, 1)


def crop_region(
    size: tuple[int, int], rows: Span, columns: Span, crop: tuple[int, int], mirrored: bool
) -> np.ndarray:
    """The place of a crop in the full image.

    Args:
        size: (H, W) of the source image.
        rows, columns: the crop along each axis, before mirroring.
        crop: (h, w).
        mirrored: crop and full image are mirrored.

    Returns:
        (4,) float32 x0, y0, x1, y1 in widths and heights; outside [0, 1] for padding.
    """
    (y0, y1), (x0, x1) = (
        ((s.start - s.before / s.factor) / n, (s.start + (c - s.before) / s.factor) / n)
        for s, n, c in zip((rows, columns), size, crop)
    )
    return np.array([1 - x1, y0, 1 - x0, y1] if mirrored else [x0, y0, x1, y1], np.float32)


def colour_jitter(strength: float) -> A.ColorJitter:
    """Brightness, contrast, saturation and hue, with probability 0.8; ``strength`` in [0, 1]."""
    reach = 0.8 * strength
    return A.ColorJitter(
        brightness=reach, contrast=reach, saturation=reach, hue=0.2 * reach, p=0.8 * bool(reach)
    )


class BandJitter:
    """Brightness and contrast, the same for all bands, with probability 0.8.

    In units of each band's deviation from its mean, z becomes c z + b; c is drawn from 1 -
    reach to 1 + reach and b from -reach to reach, with the reach of `colour_jitter`.

    Args:
        strength: in [0, 1].
        bands: of the images.
    """

    def __init__(self, strength: float, bands: Bands) -> None:
        self.reach, self.bands = 0.8 * strength, bands

    def __call__(self, window: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A window (H, W, C) of the bands' type, in a new array unless it stays as it is."""
        chance, contrast, brightness = rng.uniform((0, -1, -1), 1)
        if not self.reach or chance >= 0.8:
            return window
        mean, std = (np.array(x, np.float32) for x in (self.bands.mean, self.bands.std))
        moved = (window - mean) * np.float32(1 + self.reach * contrast)
        moved += mean + std * np.float32(self.reach * brightness)
        if window.dtype == np.float32:
            return moved
        return np.rint(moved).clip(0, np.iinfo(window.dtype).max).astype(window.dtype)


def seeded(transform: A.BasicTransform, rng: np.random.Generator) -> A.BasicTransform:
    """The transform with its own seed. A.Compose seeds all transforms equally: equal draws."""
    transform.set_random_seed(int(rng.integers(1 << 32)))
    return transform


def draw_pixel(mask: np.ndarray, wanted: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """Row and column of a random pixel of a class, or None if the mask or the layers have none."""
    found = np.flatnonzero(mask[..., wanted] == 1 if mask.ndim == 3 else mask == wanted)
    if not len(found):
        return None
    row, column = divmod(int(rng.choice(found)), mask.shape[1])
    return row, column


@functools.cache
def own_function(where: str) -> Callable[..., Any]:
    """The function that data.augment names; UserError (usage) if there is none."""
    path, _, name = where.rpartition(":")
    if not Path(path).is_file():
        raise UserError(f"data.augment {where!r}: expected FILE.py:FUNCTION, no file {path!r}", 2)
    function = getattr(load_module(Path(path)), name, None)
    if not callable(function):
        raise UserError(f"data.augment {where!r}: {path} has no function {name}", code=2)
    return function


def augmented(
    where: str, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What a user's function makes of a copy of an image and its train ids; UserError for a result
    that is no such pair, of the image's type and channels."""
    result = own_function(where)(image.copy(), mask.copy(), rng)
    fits = isinstance(result, tuple) and len(result) == 2
    channels = image.shape[2]
    if fits:
        pixels, ids = map(np.asarray, result)
        fits = (
            (pixels.dtype, ids.dtype) == (image.dtype, np.uint8)
            and pixels.shape == (*ids.shape[:2], channels)
            and ids.shape[2:] == mask.shape[2:]
            and ids.ndim == mask.ndim
            and ids.size > 0
        )
    if not fits:
        raise UserError(
            f"data.augment {where!r}: expected (image (H, W, {channels}) {image.dtype}, "
            "mask (H, W) uint8) of one size in return"
        )
    return np.ascontiguousarray(pixels), np.ascontiguousarray(ids)


class TrainTransform:
    """Random scale, crop (padded if the image is smaller), mirror and colour jitter.

    The window is cut before it is resized, and the jitter works on the smaller of the two: the cost
    depends on the crop, not the image. Padding is not jittered. Values that are not finite become
    their band's mean.

    Args:
        settings: crop, scale, flip, photometric, augment.
        fill: (r, g, b) of padding, the encoder's mean colour.
        bands: of the images where they are no 8-bit RGB; padding is then each band's mean.
    """

    def __init__(
        self,
        settings: Data,
        fill: tuple[int, int, int] = (124, 116, 104),
        bands: Bands | None = None,
    ) -> None:
        self.crop, self.scale, self.flip = tuple(settings.crop), settings.scale, settings.flip
        self.bands = bands
        colours = colour_jitter(settings.photometric)
        self.jitter = BandJitter(settings.photometric, bands) if bands else colours
        self.fill = (bands.filling if bands else np.array(fill, np.uint8))[:, None, None]
        self.augment = settings.augment
        if self.augment:
            own_function(self.augment)  # fails before the first sample

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, name: str, seed: int, wanted: int = -1
    ) -> Sample:
        """A sample of an (H, W, 3) image, or one of ``bands``, and its (H, W) train ids or
        (H, W, C) layers, determined by ``seed``.

        The crop contains a random pixel of the class ``wanted`` if the mask has one.
        """
        if self.augment:
            image, mask = augmented(self.augment, image, mask, np.random.default_rng((seed, 1)))
        rng = np.random.default_rng(seed)
        scale = rng.uniform(*self.scale)
        places = rng.random(2)
        if wanted >= 0 and (pixel := draw_pixel(mask, wanted, rng)):
            axes = zip(mask.shape, self.crop, pixel, places)
            places = np.array([aimed(n, c, scale, at, draw) for n, c, at, draw in axes])
        rows, columns = (
            draw_span(n, c, scale, place) for n, c, place in zip(mask.shape, self.crop, places)
        )
        mirrored = self.flip and rng.random() < 0.5
        window = image[rows.start : rows.stop, columns.start : columns.stop]
        if window.dtype == np.float32:
            window = np.where(np.isfinite(window), window, self.fill[:, 0, 0])
        if scale >= 1:
            window = self._jittered(window, rng)
        window = resize(window, rows, columns)
        if scale < 1:
            window = self._jittered(window, rng)
        ids = resize_mask(mask, rows, columns)
        left = columns.before
        if mirrored:
            window, ids = window[:, ::-1], ids[:, ::-1]
            left = self.crop[1] - left - columns.filled
        pixels = np.broadcast_to(self.fill, (len(self.fill), *self.crop)).copy()
        truth = np.full((*self.crop, *mask.shape[2:]), IGNORE, np.uint8)
        inside = np.s_[rows.before : rows.before + rows.filled, left : left + columns.filled]
        pixels[:, *inside] = window.transpose(2, 0, 1)
        truth[inside] = ids
        region = crop_region(mask.shape, rows, columns, self.crop, mirrored)
        return Sample(pixels, truth, region, name)

    def _jittered(self, window: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if isinstance(self.jitter, BandJitter):
            return self.jitter(window, rng)
        return seeded(self.jitter, rng)(image=window)["image"]


class LabelledSample(NamedTuple):
    """One classification sample.

    Attributes:
        image: (3, h, w) uint8 RGB.
        target: () int64 class.
        name: the image's name.
    """

    image: np.ndarray
    target: np.ndarray
    name: str


class ImageTransform:
    """Classification samples at the crop's size.

    Training cuts a random part with a share of the area in ``settings.scale`` (Szegedy et al.
    2015). With scale (1, 1) it cuts a random window of the image resized to just cover the crop.
    Then mirror and colour jitter. Evaluation cuts the centre of the resized image, and leaves an
    image of the crop's size unchanged.

    Args:
        settings: crop, scale, flip, photometric.
        train: random or not.
    """

    def __init__(self, settings: Data, train: bool) -> None:
        self.size = height, width = tuple(settings.crop)
        low, high = settings.scale
        cover = [A.SmallestMaxSize(max_size_hw=(height, width)), A.PadIfNeeded(height, width)]
        if train and low < 1:
            steps = [A.RandomResizedCrop((height, width), scale=(low, min(high, 1.0)))]
        else:
            steps = [*cover, A.RandomCrop(height, width) if train else A.CenterCrop(height, width)]
        self.steps = [
            *steps,
            *[A.HorizontalFlip(p=0.5)] * (train and settings.flip),
            colour_jitter(settings.photometric * train),
        ]
        self.fixed = not (train and (settings.flip or settings.photometric or low < 1))

    def __call__(self, image: np.ndarray, target: int, name: str, seed: int = 0) -> LabelledSample:
        """A sample of an (H, W, 3) image, determined by ``seed``."""
        if not (self.fixed and image.shape[:2] == self.size):
            rng = np.random.default_rng(seed)
            for step in self.steps:
                image = seeded(step, rng)(image=image)["image"]
        return LabelledSample(
            np.ascontiguousarray(image.transpose(2, 0, 1)), np.asarray(target), name
        )
