"""Decode images and masks. Masks keep their stored values; ambiguous files are refused."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
)

from cfnseg.errors import UserError

MOST_PIXELS = 1 << 30  # OpenCV's limit; Pillow's is a sixth of it and would refuse maps and scans
PNG = b"\x89PNG\r\n\x1a\n"
FILLING = bytes(16)  # replaces the end marker of a JPEG
ORIENTATION = 0x0112  # EXIF's tag
# errors of decoders for damaged data
FAULTS = (
    OSError,
    ValueError,
    ArithmeticError,
    SyntaxError,
    struct.error,
    Image.DecompressionBombError,
)
OPENERS = {
    PNG: PngImagePlugin.PngImageFile,
    b"\xff\xd8": JpegImagePlugin.JpegImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImagePlugin.TiffImageFile),
}
LOSSLESS = ("BMP", "DIB", "GIF", "PNG", "TIFF")  # formats that masks may have
# lossless compressions of TIFF
KEPT = (
    None,
    "raw",
    "packbits",
    "tiff_lzw",
    "tiff_deflate",
    "tiff_adobe_deflate",
    "group3",
    "group4",
    "lzma",
    "zstd",
)


class Mask(NamedTuple):
    """A mask file's content.

    Attributes:
        ids: (H, W) uint8 as stored.
        bits: 1, 2 or 4 for gray pixels with that many bits, else 8.
    """

    ids: np.ndarray
    bits: int


def decode_image(data: bytes, source: object, thorough: bool = False) -> np.ndarray:
    """The bytes of an image file as (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    Gray becomes three equal channels, alpha is dropped, 16 bits become the upper 8.

    Args:
        data: the file.
        source: its name, for errors.
        thorough: find data after a JPEG's last pixel too, in twice the time.

    Raises:
        UserError: a file that is damaged or not an image, has several pictures, or more than
            `MOST_PIXELS`.
    """
    try:
        if data.startswith(PNG):
            header, chunks = png_chunks(data)
            if b"acTL" in chunks:
                raise ValueError("an animation, expected one picture")
            return cv2.cvtColor(decoded(data, cv2.IMREAD_COLOR, header[:2]), cv2.COLOR_BGR2RGB)
        if data.startswith(b"\xff\xd8"):
            data, channels, size = _jpeg_parts(data)
            if thorough and _ends_late(data):
                raise ValueError("data are left after its last pixel: some before it are damaged")
            if channels != 4:  # OpenCV reads any four channels as Adobe's inverted CMYK
                return cv2.cvtColor(decoded(data, cv2.IMREAD_COLOR, size), cv2.COLOR_BGR2RGB)
        with _opened(data) as opened:
            _demand_one_picture(opened)
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith(("I", "F")):
                return _upper_bits(np.asarray(upright))
            return np.array(upright.convert("RGB"))
    except FAULTS as error:
        raise UserError(f"{source}: not a readable image ({reason_of(error, data)})") from None


def decode_mask(data: bytes, source: object) -> Mask:
    """The ids of a mask file: palette indices, or unscaled gray samples of 1 to 16 bits.

    Raises UserError naming ``source`` for a file that is damaged, may be lossy, or holds anything
    but one channel of whole numbers from 0 to 255.
    """
    try:
        values, bits = stored_samples(data, source)
    except NoIds as error:
        raise UserError(
            f"{source}: {error}, expected one id per pixel: an 8-bit gray or palette PNG"
        ) from None
    if values.dtype != np.uint8 and (
        values.dtype.kind == "f" or values.min(initial=0) < 0 or values.max(initial=0) > 255
    ):
        raise UserError(
            f"{source}: the mask has {values.dtype} ids from {values.min()} up to "
            f"{values.max()}, expected whole numbers from 0 to 255 (instance ids?)"
        )
    return Mask(values.astype(np.uint8, copy=False), bits)


def stored_samples(data: bytes, source: object) -> tuple[np.ndarray, int]:
    """The samples (H, W) of a mask file in their stored type, and `Mask.bits`.

    Raises UserError for a damaged file, NoIds for a file without ids or with ambiguous ids.
    """
    try:
        return _png_samples(data) if data.startswith(PNG) else _other_samples(data)
    except FAULTS as error:
        raise UserError(f"{source}: not a readable mask ({reason_of(error, data)})") from None


def shown_pixels(data: bytes) -> tuple[np.ndarray, str, bool]:
    """The pixels that a viewer shows, (H, W, 3) or gray (H, W); Pillow's mode; may it be lossy?"""
    with _opened(data) as image:
        lossy = image.format not in LOSSLESS or (
            image.format == "TIFF" and image.info.get("compression") not in KEPT
        )
        mode = image.mode
        return np.asarray(image.convert("L" if mode in ("1", "L") else "RGB")), mode, lossy


def palette_of(data: bytes) -> np.ndarray | None:
    """The palette (n, 3) uint8 of a mask file, or None; for files that `stored_samples` reads."""
    with _opened(data) as image:
        palette = image.getpalette() if image.mode == "P" else None
    return None if palette is None else np.array(palette, np.uint8).reshape(-1, 3)


def stored_form(data: bytes) -> tuple[tuple[int, int], int]:
    """Stored (H, W) and EXIF orientation (1 = upright) of a file that `decode_image` reads."""
    with _opened(data) as image:
        width, height = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow's size may be upright already
            width, height = image.tag_v2[256], image.tag_v2[257]
        # without EXIF at its start, Pillow would decode a PNG to search for it
        known = image.format != "PNG" or "exif" in image.info
        return (height, width), image.getexif().get(ORIENTATION, 1) if known else 1


def mask_bits(path: Path) -> int:
    """`Mask.bits` of a file, from its header; 8 if it cannot be read."""
    try:
        with path.open("rb") as file:
            header = file.read(26)
            if header.startswith(PNG):
                return header[24] if header[25] == 0 and header[24] < 8 else 8
            if header.startswith((b"II", b"MM")):
                with _opened(header + file.read()) as image:
                    return _demand_plain_tiff(image)
    except (*FAULTS, IndexError, AttributeError, NoIds):
        pass
    return 8


class NoIds(Exception):
    """A readable file without ids, or with ambiguous ids.

    Args:
        reason: why.
        shown: the displayed pixels (`shown_pixels`) may reveal the meaning.
    """

    def __init__(self, reason: str, shown: bool = False) -> None:
        super().__init__(reason)
        self.shown = shown


def _png_samples(data: bytes) -> tuple[np.ndarray, int]:
    """A PNG's samples (H, W), and `Mask.bits`.

    Decodes a gray PNG without other chunks, so that no palette, transparency, gamma or profile
    changes a sample.
    """
    (width, height, depth, color, interlace), chunks = png_chunks(data)
    if color not in (0, 3):
        kinds = {2: "colours (mode RGB)", 4: "an alpha channel (mode LA)", 6: "colours (mode RGBA)"}
        raise NoIds(f"the mask has {kinds.get(color, f'the colour type {color}')}", shown=True)
    if b"acTL" in chunks:
        raise NoIds("the mask is an animation")
    if _turned(chunks.get(b"eXIf", [b""])[0]):
        raise NoIds(
            "the mask has an EXIF orientation, and programs disagree on which side of it is up"
        )
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, interlace)
    parts = [_chunk(b"IDAT", part) for part in chunks.get(b"IDAT", [])]
    plain = b"".join([PNG, _chunk(b"IHDR", header), *parts, _chunk(b"IEND", b"")])
    samples = decoded(plain, cv2.IMREAD_UNCHANGED, (width, height))
    if depth < 8:  # OpenCV stretches gray of few bits to 0..255
        samples //= 255 // ((1 << depth) - 1)
    return samples, depth if color == 0 and depth < 8 else 8


def png_chunks(data: bytes) -> tuple[tuple[int, ...], dict[bytes, list[bytes]]]:
    """Width, height, depth, colour type and interlacing, and the chunks' contents by kind.

    Raises ValueError for an incomplete chunk, a wrong checksum, or more pixels than the data can
    hold.
    """
    chunks: dict[bytes, list[bytes]] = {}
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        content, at = data[at + 8 : at + 8 + length], at + 12 + length
        if at > len(data):
            raise ValueError("the file is cut off")
        if kind in (b"IHDR", b"PLTE", b"IDAT") and _checksum(kind, content) != data[at - 4 : at]:
            raise ValueError(f"the checksum of a part is wrong ({kind.decode()})")
        chunks.setdefault(kind, []).append(content)
    width, height, depth, color, _, _, interlace = struct.unpack(
        ">IIBBBBB", chunks.get(b"IHDR", [b""])[0]
    )
    demand_size(width, height)
    packed = sum(map(len, chunks.get(b"IDAT", [])))
    if width * height * depth > 8 * 1040 * (packed + 64):  # deflate reaches 1032 to 1
        raise ValueError(f"the header says {width}x{height} pixels, the data ends before")
    return (width, height, depth, color, interlace), chunks


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + _checksum(kind, content)


def _checksum(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def _jpeg_parts(data: bytes) -> tuple[bytes, int, tuple[int, int]]:
    """A JPEG for the decoder, its channels, and (width, height).

    If data are missing, a decoder reaches the end marker early and silently fills the rest with
    gray. At the end of the bytes it fails instead. So a picture in one scan loses its end marker;
    the filling only serves the decoder's read-ahead. Raises ValueError for a file without its end.
    """
    channels, size, one_scan, at = 3, (1, 1), False, 2
    sequential, several, cells, interval = False, False, 0, 0
    while at + 4 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF:
            raise ValueError("damaged between its segments")
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, channels = struct.unpack(">HHB", data[at + 5 : at + 10])
            size, sequential = (width, height), marker in (0xC0, 0xC1)
            cells = _cells(data[at + 10 : at + 2 + length], channels, width, height)
        several |= marker == 0xE2 and data[at + 4 : at + 8] == b"MPF\0"
        if marker == 0xDD:
            interval = int.from_bytes(data[at + 4 : at + 6], "big")
        if marker == 0xDA:
            one_scan = sequential and data[at + 4 : at + 5] == bytes([channels])
            break
        at += 2 + length
    demand_size(*size)
    # searching from the end takes a tenth of the time; an MPF segment announces a second picture
    end = (data.find if several else data.rfind)(b"\xff\xd9", at)
    if one_scan:
        end = end if end > 0 else len(data)
        if interval:
            restarts = re.findall(rb"\xff([\xd0-\xd7])", data[at:end])
            if b"".join(restarts) != bytes(0xD0 + i % 8 for i in range(-(-cells // interval) - 1)):
                raise ValueError("parts between its restart markers are missing")
        return data[:end] + FILLING, channels, size
    if end < 0:
        raise ValueError("the file is cut off")
    return data, channels, size


def _cells(components: bytes, channels: int, width: int, height: int) -> int:
    """Number of minimum coded units of a JPEG in one scan; 8 x 8 pixels for a single channel."""
    factors = [(c >> 4, c & 15) for c in components[1::3]]
    across, down = (8 * max(f[k] for f in factors) if channels > 1 else 8 for k in (0, 1))
    return -(-width // across) * -(-height // down)


def _ends_late(data: bytes) -> bool:
    """Whether a JPEG of `_jpeg_parts` decodes without its last 64 bytes; not for several scans."""
    if not data.endswith(FILLING) or len(data) < 2000:
        return False
    shorter = np.frombuffer(data[: -len(FILLING) - 64], np.uint8)
    return cv2.imdecode(shorter, cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None


def decoded(data: bytes, flags: int, size: tuple[int, int]) -> np.ndarray:
    """Decode a PNG or JPEG with OpenCV; ValueError if it fails."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # no memory
        image = None
    if image is None:
        raise ValueError(
            f"its data is damaged or ends before the last of {size[0]}x{size[1]} pixels"
        )
    return image


def demand_size(width: int, height: int) -> None:
    """Raise ValueError for no pixels, or more than `MOST_PIXELS`."""
    if not 0 < width * height <= MOST_PIXELS:
        raise ValueError(f"the header says {width}x{height} pixels, expected 1 to {MOST_PIXELS:,}")


def _opened(data: bytes) -> Any:
    """`PIL.Image.open` with the limit `MOST_PIXELS`, without changing Pillow's global limit."""
    stream = io.BytesIO(data)
    opener: Callable[[io.BytesIO], Any] = next(
        (opener for start, opener in OPENERS.items() if data.startswith(start)), Image.open
    )
    image = opener(stream)
    demand_size(*image.size)
    large = image.width * image.height > (Image.MAX_IMAGE_PIXELS or 0)
    if image.format == "TIFF" and large and image.tag_v2.get(274, 1) == 1:
        ImageFile.ImageFile.load_prepare(image)  # without memory Pillow checks its limit again
    return image


def _demand_one_picture(image: Any) -> None:
    """Raise ValueError for an animation or several pages; reduced copies in a TIFF do not count."""
    pages = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
    if pages > 1 and image.format == "TIFF":
        pages = 1
        for number in range(1, image.n_frames):
            image.seek(number)
            pages += not image.tag_v2.get(254, 0) & 5  # a reduced copy, or a transparency mask
        image.seek(0)
    if pages > 1:
        raise ValueError(f"it has {pages} pictures, expected one")


def _other_samples(data: bytes) -> tuple[np.ndarray, int]:
    """`_png_samples` for BMP, GIF and TIFF; NoIds for other formats."""
    with _opened(data) as image:
        if image.format not in LOSSLESS:
            raise NoIds(
                f"the file is a {image.format}, which may change pixel values a little", shown=True
            )
        _demand_one_picture(image)
        bits = _demand_plain_tiff(image) if image.format == "TIFF" else 8
        if image.mode not in ("1", "L", "P") and not image.mode.startswith(("I", "F")):
            raise NoIds(f"the mask has colours (mode {image.mode})", shown=True)
        values = np.asarray(image)
        if image.mode == "1":
            return values.astype(np.uint8), bits
        if image.mode == "L" and bits < 8:  # stretched by Pillow
            return values // np.uint8(255 // ((1 << bits) - 1)), bits
        if image.format == "TIFF" and image.mode == "L" and image.tag_v2.get(339, (1,))[0] == 2:
            values = values.view(np.int8)
        return values, 8


def _demand_plain_tiff(image: TiffImagePlugin.TiffImageFile) -> int:
    """`Mask.bits` of a TIFF; NoIds if its tags make the ids ambiguous."""
    if image.info.get("compression") not in KEPT:
        raise NoIds(
            f"the mask's compression ({image.info['compression']}) changes pixel values a little",
            shown=True,
        )
    if image.tag_v2.get(262) == 0:
        raise NoIds(
            "the mask is a TIFF in which white is zero, and programs disagree whether that "
            "inverts its ids"
        )
    if image.tag_v2.get(274, 1) != 1:
        raise NoIds(
            "the mask has an orientation tag, and programs disagree on which side of it is up"
        )
    depth = image.tag_v2.get(258, (1,))[0]
    return depth if image.tag_v2.get(262) == 1 and depth in (1, 2, 4) else 8


def _turned(exif: bytes) -> bool:
    tags = Image.Exif()
    tags.load(exif)
    return tags.get(ORIENTATION, 1) != 1


def _upper_bits(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"pixels of type {values.dtype} are not 8 or 16 bit colours")
    return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, 2)


def reason_of(error: BaseException, data: bytes) -> str:
    """Why a decoder refused a file, for a message."""
    if not data:
        return "the file is empty"
    if isinstance(error, struct.error):
        return "the file is cut off"
    return str(error).split(" <_io")[0].strip()  # Pillow names the buffer in place of the file
