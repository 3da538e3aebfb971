"""Scenes whose classes overlap: a disc over a stripe, each wholly its class."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cfnseg.data.labels import Label, LabelMap

CLASSES = (("stripe", (230, 60, 40)), ("disc", (40, 90, 230)))
LABELS = LabelMap([Label(i + 1, name, color) for i, (name, color) in enumerate(CLASSES)])


def scene(seed: int, size=(48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) and layers (H, W, 2) uint8: red stripes, blue discs, both where they meet."""
    rng = np.random.default_rng(seed)
    height, width = size
    layers = np.zeros((*size, 2), np.uint8)
    top = int(rng.integers(4, height // 2))
    layers[top : top + height // 3, :, 0] = 1
    centre = int(rng.integers(width // 4, 3 * width // 4)), top + height // 4
    disc = np.zeros(size, np.uint8)
    cv2.circle(disc, centre, height // 4, 1, -1)
    layers[..., 1] = disc
    image = 110 + rng.normal(0, 6, (*size, 3))
    image[..., 0] += 90 * layers[..., 0]
    image[..., 2] += 90 * layers[..., 1]
    return image.clip(0, 255).astype(np.uint8), layers


def write_folder(root: Path, splits: dict[str, int]) -> Path:
    """A folder data set of scenes, with one mask file for each class."""
    root.mkdir()
    lines = [f"{i + 1} {name} {' '.join(map(str, rgb))}" for i, (name, rgb) in enumerate(CLASSES)]
    (root / "classes.txt").write_text("\n".join(lines))
    first = 0
    for split, count in splits.items():
        (root / "images" / split).mkdir(parents=True)
        for i in range(count):
            image, layers = scene(first + i)
            Image.fromarray(image).save(root / "images" / split / f"s{i:03d}.png")
            folder = root / "labels" / split / f"s{i:03d}"
            folder.mkdir(parents=True)
            for c, (name, _) in enumerate(CLASSES):
                Image.fromarray(layers[..., c] * 255).save(folder / f"{name}.png")
        first += 1000
    return root


class Scenes:
    """The scenes as a data set of one's own, in memory."""

    labels = LABELS

    def __init__(self, count: int, first: int = 0) -> None:
        self.names = [f"s{first + i:04d}" for i in range(count)]

    def image(self, index):
        """See `cfnseg.Dataset`."""
        return scene(int(self.names[index][1:]))[0]

    def ids(self, index):
        """See `cfnseg.Dataset`."""
        return scene(int(self.names[index][1:]))[1]
