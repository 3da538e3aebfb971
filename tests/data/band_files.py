"""Images of bands for tests: arrays, files, and a data set whose last band tells the classes."""

from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image

import cfnseg

# 10 m pixels from (500000, 4600000) on, UTM zone 33 north: OGC GeoTIFF 1.1
GEOTAGS = [
    (33550, "d", 3, (10.0, 10.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4.6e6, 0.0), True),
    (34735, "H", 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633), True),
]


LABELS = cfnseg.LabelMap([cfnseg.Label(0, "a", (0, 0, 0)), cfnseg.Label(1, "b", (9, 9, 9))])


class Arrays:
    """A user's data set of the images given."""

    labels = LABELS

    def __init__(self, images):
        self.images, self.names = images, [f"i{k}" for k in range(len(images))]

    def image(self, index):
        return self.images[index]

    def ids(self, index):
        return (self.images[index][..., 0] > 0).astype(np.uint8)


def noise(shape: tuple[int, ...], kind: str, seed: int = 0) -> np.ndarray:
    """Random values of a type, over all of its range where it has one."""
    rng = np.random.default_rng(seed)
    if kind == "float32":
        return rng.normal(-3, 100, shape).astype(np.float32)
    return rng.integers(0, np.iinfo(kind).max + 1, shape, kind)


def write_tiff(path: Path, image: np.ndarray, **settings) -> None:
    """(H, W, C) as a TIFF of C bands."""
    planar = settings.pop("planarconfig", "contig")
    if planar == "separate":
        image = np.moveaxis(image, 2, 0)
    if 1 in image.shape:
        image, planar = image.squeeze(), None
    settings = {"photometric": "minisblack", "planarconfig": planar} | settings
    tifffile.imwrite(path, image, **settings)


def write_data(root: Path, images: int = 16, kind: str = "uint16", **settings) -> Path:
    """A folder data set of 5 bands, 64 x 80. The last alone tells its two classes."""
    rng = np.random.default_rng(3)
    (root / "classes.txt").parent.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("0 rest 0 0 0\n1 crop 220 20 60\n")
    for split, count in (("train", images), ("val", 4)):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for i in range(count):
            coarse = rng.random((4, 5)).astype(np.float32)
            ids = (cv2.resize(coarse, (80, 64), interpolation=cv2.INTER_CUBIC) > 0.5) * 1
            image = rng.normal(9000, 2500, (64, 80, 5))
            image[..., 4] = 12000 + 30000 * ids + rng.normal(0, 2000, ids.shape)
            image = image.clip(0, 65535).astype(kind)
            write_tiff(root / "images" / split / f"s{i}.tif", image, **settings)
            mask = Image.fromarray(ids.astype(np.uint8), mode="P")
            mask.putpalette([0, 0, 0, 220, 20, 60] + [255] * 762)
            mask.save(root / "labels" / split / f"s{i}.png")
    return root
