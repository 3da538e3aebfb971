"""Pictures of predictions: overlays, and sheets of image, truth and prediction side by side."""

from __future__ import annotations

import cv2
import numpy as np

from cfnseg.data.labels import IGNORE, LabelMap


def overlay(image: np.ndarray, mask: np.ndarray, labels: LabelMap, strength: float = 0.55) -> np.ndarray:
    """(H, W, 3) uint8: the image under the colours of its (H, W) train ids; ignored pixels show the image alone."""
    colors = labels.colorize(mask)
    mixed = cv2.addWeighted(image, 1 - strength, colors, strength, 0)
    mixed[mask == IGNORE] = image[mask == IGNORE]
    return mixed


def sheet(rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]], labels: LabelMap, height: int = 240) -> np.ndarray:
    """One picture of many: a row is image, truth and prediction (train ids), each ``height`` pixels high."""
    lines = []
    for image, truth, prediction in rows:
        panels = [image, labels.colorize(truth), labels.colorize(np.where(truth == IGNORE, IGNORE, prediction).astype(np.uint8))]
        width = round(image.shape[1] * height / image.shape[0])
        lines.append(np.hstack([cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in panels]))
    widest = max(line.shape[1] for line in lines)
    return np.vstack([np.pad(line, ((0, 4), (0, widest - line.shape[1]), (0, 0)), constant_values=255) for line in lines])


def write_jpeg(path, image: np.ndarray, quality: int = 90) -> None:
    """Write (H, W, 3) uint8 RGB as a JPEG file."""
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise OSError(f"{path}: the picture could not be encoded")
    path.write_bytes(data.tobytes())
