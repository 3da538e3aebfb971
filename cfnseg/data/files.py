"""Reading images and masks, and finding data sets; every failure names the file, the fault and the way out."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from cfnseg.errors import UserError

IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def read_image(path: str | Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    Gray becomes three equal channels, alpha is dropped, 16 bits become the upper 8. Raises UserError for a file that is
    missing, truncated or no image.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    return decode_image(data, path)


def decode_image(data: bytes, source: object) -> np.ndarray:
    """The bytes of an image file as `read_image` gives them; errors name ``source``."""
    # OpenCV decodes twice as fast as Pillow but shows half of a truncated file without a word, so only files with their
    # end marker go there, and Pillow has the last word on the rest.
    if (data[:2] == b"\xff\xd8" and b"\xff\xd9" in data[-1024:]) or (data[:4] == b"\x89PNG" and b"IEND" in data[-64:]):
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # a header that promises a gigantic image
            image = None
        if image is not None:
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith(("I", "F")):
                values = np.asarray(upright)
                if upright.mode == "F" or values.min() < 0 or values.max() > 65535:
                    raise UserError(f"{source}: pixels of type {values.dtype} are not 8 or 16 bit colours")
                return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, 2)
            return np.array(upright.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).split(" <_io")[0]  # Pillow names the buffer in place of the file
        raise UserError(f"{source}: not a readable image ({reason})") from None


def read_mask(path: str | Path) -> np.ndarray:
    """A mask file as (H, W) uint8 ids; a palette PNG gives its indices, SBD's .mat files are read as well.

    Raises UserError for a file that is missing, no image, has colours in place of ids, or ids above 255.
    """
    path = Path(path)
    if path.suffix == ".mat":
        return read_sbd_mask(path)
    try:
        with Image.open(path) as image:
            mode = image.mode
            mask = np.asarray(image)
    except FileNotFoundError:
        raise UserError(f"{path}: no such mask") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable mask ({error})") from None
    if mask.ndim == 3:
        raise UserError(f"{path}: the mask has colours (mode {mode}), expected one id per pixel: an 8-bit gray or palette PNG")
    if mask.dtype.kind == "f" or mask.min(initial=0) < 0 or mask.max(initial=0) > 255:
        raise UserError(f"{path}: the mask has {mask.dtype} ids from {mask.min()} up to {mask.max()}, expected whole numbers from "
                        "0 to 255 (instance ids?)")
    return mask.astype(np.uint8)


def read_sbd_mask(path: Path) -> np.ndarray:
    """The class ids (H, W) uint8 of one of SBD's ``cls/*.mat`` files; UserError if it is none."""
    from scipy.io import loadmat

    try:
        return loadmat(path)["GTcls"][0, 0]["Segmentation"].astype(np.uint8)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise UserError(f"{path}: not a readable SBD mask ({error})") from None


def read_pair(image_path: Path, mask_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """An image and its mask of raw ids; UserError if their sizes differ."""
    image, mask = read_image(image_path), read_mask(mask_path)
    if image.shape[:2] != mask.shape:
        raise UserError(f"{mask_path}: the mask is {mask.shape[1]}x{mask.shape[0]}, its image {image_path} is "
                        f"{image.shape[1]}x{image.shape[0]}")
    return image, mask


def existing(path: Path, what: str, remedy: str) -> Path:
    """``path`` if it exists, else UserError with what is near it and the remedy."""
    if path.exists():
        return path
    parent = next((p for p in path.parents if p.is_dir()), Path("/"))
    near = ", ".join(sorted(p.name + "/" * p.is_dir() for p in parent.iterdir() if not p.name.startswith("."))[:8])
    raise UserError(f"{what} not found at {path}; {parent} has {near or 'nothing'}. {remedy}")


def nonempty(pairs: Iterable[tuple[Path, Path]], folder: Path, pattern: str) -> list[tuple[Path, Path]]:
    """The pairs as a list; if there is none, UserError with the pattern that was tried in ``folder`` and what it has."""
    if pairs := list(pairs):
        return pairs
    near = ", ".join(sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())[:8])
    raise UserError(f"0 images matched {folder}/{pattern}; {folder} has {near or 'nothing'}")
