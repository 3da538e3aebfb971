"""Files of what a model believes: the confidence as a picture, all probabilities as an array."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from cfnseg.inference.windows import Strip
from cfnseg.storage import write_atomic


def write_confidence(path: Path, confidence: np.ndarray) -> None:
    """Write (H, W) probabilities in 0..1 as an 8-bit grey PNG, 255 = 1."""
    coded = cv2.imencode(".png", np.rint(confidence * 255).astype(np.uint8))[1]
    write_atomic(path, lambda temporary: temporary.write_bytes(coded.tobytes()))


def write_probabilities(path: Path, strips: Iterable[Strip], size: tuple[int, int]) -> None:
    """Write the softmax probabilities of an image as a .npy file, (C, H, W) float16.

    One strip is upsampled at a time, so that memory does not grow with the image.

    Args:
        path: the file.
        strips: of the image, all of them.
        size: (H, W) of the image.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            start = 0
            for strip in strips:
                part = strip.probabilities().half().cpu().numpy()
                if not start:
                    about = {"descr": "<f2", "fortran_order": False, "shape": (len(part), *size)}
                    np.lib.format.write_array_header_1_0(file, about)
                    start = file.tell()
                for k, rows in enumerate(part):
                    file.seek(start + 2 * size[1] * (k * size[0] + strip.rows.start))
                    file.write(rows.tobytes())

    write_atomic(path, write)
