"""Pictures small enough to travel inside a page."""

from __future__ import annotations

import base64
import io

import cv2
import numpy as np
from PIL import Image


def size_within(height: int, width: int, side: int) -> tuple[int, int]:
    """(width, height) in pixels with the longest side at most ``side``; smaller ones stay as they are."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image (H, W, 3) uint8 at a smaller (width, height)."""
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def address(image: Image.Image, kind: str, **options: object) -> str:
    """A picture as a data: address. ``kind`` is JPEG or PNG, ``options`` are those of pillow's save."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def photo(image: np.ndarray) -> str:
    """An image (H, W, 3) uint8 RGB as a JPEG's data: address."""
    return address(Image.fromarray(image), "JPEG", quality=82)
