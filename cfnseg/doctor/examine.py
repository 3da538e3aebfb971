"""Reading one pair for what it is, whatever is wrong with it, and all pairs in parallel."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cfnseg.data.dataset import Dataset, read_sample
from cfnseg.data.decode import FAULTS, NoIds, decode_image, palette_of, shown_pixels, stored_form, stored_samples
from cfnseg.data.files import read_bytes, read_mask
from cfnseg.data.loader import parallel
from cfnseg.doctor.hashes import perceptual_hash, thumbnail
from cfnseg.errors import UserError

MOST = 4096  # values kept of a mask, the most frequent ones


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        split: which it belongs to.
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
        hash: perceptual.
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
        mode: Pillow's: "L" and "P" have ids, "RGB" colours.
        bits: 1, 2 or 4 for gray pixels of so many bits, else 8.
        lossy: it is a JPEG, or another file that may change pixel values.
        colored: its values are colours, 0xRRGGBB.
        values, counts: its values, sorted, and their pixels; of more than 4,096 the most frequent.
        distinct: how many values it has.
        palette: (n, 3) uint8, if it has one.
        digest: of its pixels.
    """

    size: tuple[int, int]
    mode: str
    bits: int
    lossy: bool
    colored: bool
    values: np.ndarray
    counts: np.ndarray
    distinct: int
    palette: np.ndarray | None
    digest: bytes


@dataclass(frozen=True)
class Record:
    """What was found out about a pair; a string is the reason why a file cannot be read, None that there is none."""

    pair: Pair
    image: ImageFacts | str | None
    mask: MaskFacts | str | None


def image_facts(image: np.ndarray, stored: tuple[int, int] | None = None, orientation: int = 1) -> ImageFacts:
    """The facts of an image (H, W, 3) uint8 RGB."""
    mean, std = cv2.meanStdDev(image)
    gray = bool((image[::8, ::8, :1] == image[::8, ::8]).all() and (image[..., :1] == image).all())
    return ImageFacts(image.shape[:2], stored or image.shape[:2], orientation, gray, mean[:, 0], std[:, 0], _digest(image),
                      perceptual_hash(image), thumbnail(image))


def pack_pixels(pixels: np.ndarray) -> np.ndarray:
    """(H, W) values of a mask: (H, W, 3) uint8 colours as 0xRRGGBB, anything else as it is."""
    return pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32) if pixels.ndim == 3 else pixels


def mask_facts(mask: np.ndarray, mode: str = "L", lossy: bool = False, palette: np.ndarray | None = None, bits: int = 8) -> MaskFacts:
    """The facts of a mask: (H, W) ids of any type, or (H, W, 3) uint8 colours."""
    colored = mask.ndim == 3
    pixels = pack_pixels(mask)
    if pixels.dtype in (np.uint8, np.bool_):
        counts = np.bincount(pixels.ravel(), minlength=256)
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(pixels, return_counts=True)
    distinct = len(values)
    kept = np.sort(np.argsort(-counts, kind="stable")[:MOST])
    return MaskFacts(mask.shape[:2], mode, bits, lossy, colored, values[kept], counts[kept], distinct, palette, _digest(mask))


def open_mask(path: Path) -> tuple[np.ndarray, str, bool, np.ndarray | None, int]:
    """A mask file as it is stored: pixels, (H, W) or (H, W, 3) colours, and the rest of `mask_facts`' arguments.

    Raises UserError for a file that cannot be read, or leaves open what its ids are.
    """
    if path.suffix == ".mat":
        return read_mask(path), "L", False, None, 8
    data = read_bytes(path)
    try:
        pixels, bits = stored_samples(data, path)
        palette = palette_of(data)
        return pixels, "L" if palette is None else "P", False, palette, bits
    except NoIds as error:
        if not error.shown:
            raise UserError(f"{path}: {error}") from None
    try:
        return *shown_pixels(data), None, 8
    except FAULTS as error:
        raise UserError(f"{path}: not a readable mask ({error})") from None


def examine(pair: Pair) -> Record:
    """Read a pair; nothing that is wrong with its files raises."""
    if pair.drawn:
        dataset, index = pair.drawn
        image, train = read_sample(dataset, index)
        return Record(pair, image_facts(image), mask_facts(dataset.labels.decode(train)))
    return Record(pair, _examine_image(pair.image), _examine_mask(pair.mask))


def _examine_image(path: Path | None) -> ImageFacts | str | None:
    if path is None:
        return None
    try:
        data = read_bytes(path)
        image = decode_image(data, path, thorough=True)
        return image_facts(image, *stored_form(data))
    except UserError as error:
        return _reason(error, path)


def _examine_mask(path: Path | None) -> MaskFacts | str | None:
    if path is None:
        return None
    try:
        return mask_facts(*open_mask(path))
    except UserError as error:
        return _reason(error, path)


def _reason(error: UserError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ").replace(str(path), path.name)


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels), digest_size=16, key=str(pixels.shape).encode()).digest()


def examine_all(pairs: list[Pair], workers: int) -> Iterator[Record]:
    """The records of all pairs in their order, read by ``workers`` processes (0 = this one)."""
    return parallel(functools.partial(_examine_at, pairs), range(len(pairs)), workers)


def _examine_at(pairs: list[Pair], index: int) -> Record:
    return examine(pairs[index])
