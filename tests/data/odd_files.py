"""Writers of image and mask files as other programs make them; each returns the file's bytes."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)  # y, x, step y, step x


def pillow(image: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        file, kind, **options
    )
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def packed(rows: np.ndarray, depth: int) -> list[bytes]:
    """Each row's samples of 1 to 16 bits, the first in the highest bits."""
    if depth >= 8:
        return [row.astype(f">u{depth // 8}").tobytes() for row in rows]
    return [
        np.packbits((row[:, None] >> np.arange(depth)[::-1] & 1).astype(np.uint8).ravel()).tobytes()
        for row in rows
    ]


def png(
    ids: np.ndarray, depth: int = 8, color: int = 0, more: bytes = b"", interlaced: bool = False
) -> bytes:
    """A PNG of one channel, 0 = gray or 3 = palette; ``more`` are chunks before the data."""
    passes = [ids[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [ids]
    data = b"".join(b"\0" + row for part in passes if part.size for row in packed(part, depth))
    header = struct.pack(">IIBBBBB", *ids.shape[::-1], depth, color, 0, 0, interlaced)
    if color == 3:
        more = chunk(b"PLTE", bytes(range(255, 255 - 3 * min(1 << depth, 80), -1))) + more
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + more
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def tiff(
    values: np.ndarray, depth: int, white: int = 255, order: str = "<", orientation: int = 1
) -> bytes:
    """A TIFF of one channel; ``white`` 0 says that zero is shown white."""
    kind = {"u": 1, "b": 1, "i": 2, "f": 3}[values.dtype.kind]
    data = (
        values.astype(values.dtype.newbyteorder(order)).tobytes()
        if depth >= 8
        else b"".join(packed(values, depth))
    )
    height, width = values.shape
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, depth),
        (259, 3, 1),
        (262, 3, int(white > 0)),
        (273, 4, 0),
        (274, 3, orientation),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(data)),
        (339, 3, kind),
    ]
    start = 8 + 2 + 12 * len(tags) + 4
    fields = [(tag, size, start if tag == 273 else value) for tag, size, value in tags]
    packed_tags = [
        struct.pack(f"{order}HHIHH", tag, size, 1, value, 0)
        if size == 3
        else struct.pack(f"{order}HHII", tag, size, 1, value)
        for tag, size, value in fields
    ]
    head = (
        (b"II*\0" if order == "<" else b"MM\0*")
        + struct.pack(f"{order}I", 8)
        + struct.pack(f"{order}H", len(tags))
    )
    return head + b"".join(packed_tags) + struct.pack(f"{order}I", 0) + data


def picture(height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    """A smooth picture (H, W, 3) uint8."""
    noise = np.random.default_rng(seed).integers(
        0, 256, (height // 8, width // 8, 3), dtype=np.uint8
    )
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def without_middle(data: bytes, count: int = 1000) -> bytes:
    return data[: len(data) // 2] + data[len(data) // 2 + count :]
