"""Reading one pair for what it is, whatever is wrong with it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from cfnseg.data import decode
from cfnseg.data.bands import as_picture
from cfnseg.data.dataset import Dataset, read_sample
from cfnseg.data.files import read_bytes, read_image, read_mask, rgb_image
from cfnseg.errors import UserError
from cfnseg.metrics.place import sampled

MOST = 4096  # values kept of a mask, the most frequent ones
SIDE = 16  # of the thumbnail that confirms what the hash suspects
T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        split: that it belongs to.
        name: of the image, without its suffix.
        image, mask: files; None where there is none.
        drawn: a data set without files, and the pair's index in it.
    """

    split: str
    name: str
    image: Path | None
    mask: Path | None
    drawn: tuple[Dataset, int] | None = None

    @property
    def whole(self) -> bool:
        """Whether there is both an image and a mask."""
        return bool(self.drawn or (self.image and self.mask))


@dataclass(frozen=True)
class ImageFacts:
    """An image that could be read.

    Attributes:
        size: (H, W) upright.
        stored: (H, W) as in the file.
        orientation: EXIF's, 1 = as stored.
        gray: its three channels are equal.
        mean, std: of each channel, RGB in 0..255.
        digest: of its pixels.
        hash: see `perceptual_hash`.
        thumbnail: (16, 16) uint8 gray.
    """

    size: tuple[int, int]
    stored: tuple[int, int]
    orientation: int
    gray: bool
    mean: np.ndarray
    std: np.ndarray
    digest: bytes
    hash: int
    thumbnail: np.ndarray


@dataclass(frozen=True)
class MaskFacts:
    """A mask that could be read.

    Attributes:
        size: (H, W).
        lossy: a JPEG, or another file that may change pixel values.
        palette: (n, 3) uint8, or None.
        bits: 1, 2 or 4 for gray pixels of so many bits, else 8.
        colored: its values are colours, 0xRRGGBB.
        values, counts: its values, sorted, and their pixels; the 4,096 most frequent ones.
        distinct: number of its values.
        digest: of its pixels.
        sample: see `cfnseg.metrics.place.sampled`.
    """

    size: tuple[int, int]
    lossy: bool
    palette: np.ndarray | None
    bits: int
    colored: bool
    values: np.ndarray
    counts: np.ndarray
    distinct: int
    digest: bytes
    sample: np.ndarray

    @property
    def unexplained(self) -> str:
        """The kind of finding if no form explains it: unknown-color, mask-deep or unknown-id."""
        if self.colored:
            return "unknown-color"
        low, high = self.values.min(initial=0), self.values.max(initial=0)
        whole = self.values.dtype.kind != "f"
        return "unknown-id" if whole and low >= 0 and high <= 255 else "mask-deep"


@dataclass(frozen=True)
class Record:
    """What was read of a pair: facts, the reason why a file cannot be read, or None without it."""

    pair: Pair
    image: ImageFacts | str | None
    mask: MaskFacts | str | None


def examine(pair: Pair, channels: int = 0) -> Record:
    """Read a pair; with ``channels`` all bands of its image, of which the facts are those of
    `as_picture`. No fault of its files raises."""
    if pair.drawn:
        dataset, index = pair.drawn
        image, train = read_sample(dataset, index)
        return Record(pair, image_facts(image), mask_facts(dataset.labels.decode(train)))
    return Record(
        pair,
        _read(functools.partial(_open_image, channels), pair.image),
        _read(lambda path: mask_facts(*open_mask(path)), pair.mask),
    )


def _read(function: Callable[[Path], T], path: Path | None) -> T | str | None:
    try:
        return function(path) if path else None
    except UserError as error:
        return str(error).removeprefix(f"{path}: ").replace(str(path), path.name)


def _open_image(channels: int, path: Path) -> ImageFacts:
    if channels:
        return image_facts(as_picture(read_image(path, channels)))
    data = read_bytes(path)
    image = rgb_image(data, path, thorough=True)
    return image_facts(image, *decode.stored_form(data))


def open_mask(path: Path) -> tuple[np.ndarray, bool, np.ndarray | None, int]:
    """A mask file as it is stored: pixels, (H, W) or (H, W, 3) colours; lossy, palette and bits.

    Raises UserError for a file that cannot be read, or leaves open what its ids are.
    """
    if path.suffix == ".mat":
        return read_mask(path), False, None, 8
    data = read_bytes(path)
    try:
        pixels, bits = decode.stored_samples(data, path)
        return pixels, False, decode.palette_of(data), bits
    except decode.NoIds as error:
        if not error.shown:
            raise UserError(f"{path}: {error}") from None
    try:
        pixels, _, lossy = decode.shown_pixels(data)
    except decode.FAULTS as error:
        raise UserError(f"{path}: not a readable mask ({error})") from None
    return pixels, lossy, None, 8


def image_facts(
    image: np.ndarray, stored: tuple[int, int] | None = None, orientation: int = 1
) -> ImageFacts:
    """The facts of an image (H, W, 3) uint8 RGB."""
    mean, std = cv2.meanStdDev(image)
    # a few pixels decide for almost every colour image
    gray = all((part[..., :1] == part).all() for part in (image[::8, ::8], image))
    return ImageFacts(
        image.shape[:2],
        stored or image.shape[:2],
        orientation,
        gray,
        mean[:, 0],
        std[:, 0],
        _digest(image),
        perceptual_hash(image),
        thumbnail(image),
    )


def mask_facts(
    mask: np.ndarray, lossy: bool = False, palette: np.ndarray | None = None, bits: int = 8
) -> MaskFacts:
    """The facts of a mask: (H, W) ids of any type, or (H, W, 3) uint8 colours."""
    pixels = pack_pixels(mask)
    if pixels.dtype in (np.uint8, np.bool_):  # a tenth of np.unique's time
        counts = np.bincount(pixels.ravel(), minlength=256)
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(pixels, return_counts=True)
    kept = np.sort(np.argsort(-counts, kind="stable")[:MOST])
    return MaskFacts(
        mask.shape[:2],
        lossy,
        palette,
        bits,
        mask.ndim == 3,
        values[kept],
        counts[kept],
        len(values),
        _digest(mask),
        sampled(mask),
    )


def pack_pixels(pixels: np.ndarray) -> np.ndarray:
    """(H, W) values of a mask: (H, W, 3) uint8 colours as 0xRRGGBB, other masks unchanged."""
    weights = np.array([1 << 16, 1 << 8, 1], np.uint32)
    return pixels.astype(np.uint32) @ weights if pixels.ndim == 3 else pixels


def perceptual_hash(image: np.ndarray) -> int:
    """The 64-bit pHash of an image (H, W, 3) uint8 RGB: its lowest 8 x 8 DCT terms > their median.

    Size, brightness, contrast and compression hardly change it.

    Source: Zauner 2010, Implementation and benchmarking of perceptual image hash functions,
    section 3.2.1.
    """
    low = cv2.dct(thumbnail(image, 32).astype(np.float32))[:8, :8].ravel()
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def thumbnail(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """(side, side) uint8 gray of an image (H, W, 3) uint8 RGB; a pixel is the mean of its part."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA)


def _digest(pixels: np.ndarray) -> bytes:
    shape = str(pixels.shape).encode()
    return hashlib.blake2b(np.ascontiguousarray(pixels), digest_size=16, key=shape).digest()
