"""A clean folder data set of distinct scenes, and faults to plant in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cfnseg.data.formats import shapes
from cfnseg.data.labels import Label, LabelMap

LABELS = LabelMap(Label(*c) for c in shapes.CLASSES)
SIZE = (96, 128)


def make(root: Path, train: int = 18, val: int = 6) -> Path:
    """Scenes with every class, named s00.png on, masks as palette PNGs."""
    (root / "classes.txt").write_text(
        "".join(f"{i} {n} {r} {g} {b}\n" for i, n, (r, g, b) in shapes.CLASSES)
    )
    for split, count, first in (("train", train, 0), ("val", val, 500)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            image, mask = shapes.render(first + i, SIZE)
            Image.fromarray(image).save(root / "images" / split / f"s{i:02d}.png")
            LABELS.write(root / "labels" / split / f"s{i:02d}.png", LABELS.encode(mask))
    return root


def image(root: Path, name: str = "train/s03") -> Path:
    return root / "images" / f"{name}.png"


def mask(root: Path, name: str = "train/s03") -> Path:
    return root / "labels" / f"{name}.png"


def masks(root: Path) -> list[Path]:
    return sorted((root / "labels").glob("*/*.png"))


def ids(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.array(opened)


def save(path: Path, pixels: np.ndarray, **options) -> None:
    Image.fromarray(pixels).save(path, **options)


def change(paths: list[Path], how: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write masks again, as plain PNGs of what ``how`` makes of their ids."""
    for path in paths:
        save(path, how(ids(path)))


def colours(pixels: np.ndarray) -> np.ndarray:
    return LABELS.palette()[pixels]


def gray(pixels: np.ndarray) -> np.ndarray:
    """The brightness of the classes' colours, as Pillow computes it; 255 stays."""
    return np.array(Image.fromarray(colours(pixels)).convert("L"))


def scaled(pixels: np.ndarray, factor: int = 10) -> np.ndarray:
    return np.where(pixels == 255, 255, pixels * factor).astype(np.uint8)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turned(root: Path) -> None:
    """An image stored on its side with an EXIF orientation, and a mask for it as it is stored."""
    path = image(root)
    upright = ids(path)
    path.unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    save(path.with_suffix(".jpg"), np.rot90(upright), quality=95, exif=exif)
    save(mask(root), np.ascontiguousarray(np.rot90(ids(mask(root)))))


def smeared(root: Path) -> None:
    """A colour mask that went through a JPEG, with an alpha channel."""
    bgr = colours(ids(mask(root)))[..., ::-1]
    coded = cv2.imencode(".jpg", np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    save(
        mask(root),
        np.dstack([cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1], np.full(SIZE, 255, np.uint8)]),
    )


def reordered(root: Path) -> None:
    """A palette mask as an optimiser saves it: the colours sorted anew, the ids with them."""
    pixels = ids(mask(root))
    old = np.unique(pixels)[::-1]
    new = np.zeros(256, np.uint8)
    new[old] = np.arange(len(old))
    picture = Image.fromarray(new[pixels], mode="P")
    picture.putpalette(LABELS.palette()[old].tobytes())
    picture.save(mask(root))


def put(root: Path, path: Path, value: int) -> None:
    """A patch of 5 x 7 pixels with another id."""
    pixels = ids(path)
    pixels[40:45, 40:47] = value
    save(path, pixels)
