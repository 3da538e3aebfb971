"""Images of other than 8-bit RGB: how many bands of which type, and mean and deviation of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cfnseg.errors import UserError

TYPES = ("uint8", "uint16", "float32")  # of images that are read as stored
LOW, HIGH = 2, 98  # percentiles of a band that a picture shows as black and white


@dataclass(frozen=True)
class Bands:
    """What the images of a run with ``data.channels`` are.

    Attributes:
        type: a name in TYPES.
        mean, std: of each band over the training images, in the values as stored.
    """

    type: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.mean)

    def __str__(self) -> str:
        return described(len(self), self.type)

    @property
    def filling(self) -> np.ndarray:
        """(C,) of the bands' type: the means, for padding and for values that are not finite."""
        mean = np.array(self.mean)
        return (np.rint(mean) if self.type != "float32" else mean).astype(self.type)

    def fit(self, image: np.ndarray) -> bool:
        """Is it an image (H, W, C) of these bands, with H, W >= 1?"""
        of_type = image.dtype.name == self.type
        return of_type and image.ndim == 3 and image.shape[2] == len(self) and image.size > 0

    @classmethod
    def of(cls, normalisation: dict[str, Any]) -> Bands | None:
        """The bands of a weights file's header entry; None for 8-bit RGB."""
        if "type" not in normalisation:
            return None
        mean, std = (tuple(map(float, normalisation[key])) for key in ("mean", "std"))
        return cls(normalisation["type"], mean, std)


def described(count: int, kind: object) -> str:
    """ "5 bands of uint16", for messages."""
    return f"{count} band{'s' * (count != 1)} of {kind}"


def demand_rgb(bands: Bands | None, what: str) -> None:
    """Raise UserError (usage) unless weights take 8-bit RGB, as ``what`` does."""
    if bands:
        raise UserError(f"{what} takes 8-bit RGB images, and these weights {bands}", code=2)


def as_picture(image: np.ndarray) -> np.ndarray:
    """An image (H, W, C) of any type in TYPES as (H, W, 3) uint8, to look at.

    8-bit RGB stays as it is. Otherwise the first three bands are shown, or the first as gray if
    there are fewer; each is stretched from its 2nd to its 98th percentile.
    """
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return image
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    drawn = np.zeros((*image.shape[:2], 3), np.uint8)
    for band in range(shown.shape[2]):
        values = shown[..., band].astype(np.float32)
        known = values[np.isfinite(values)]
        if not known.size:
            continue
        sparse = known[:: max(1, known.size // 1_000_000)]  # a percentile of more takes seconds
        low, high = np.percentile(sparse, (LOW, HIGH))
        scaled = (values - low) * (255 / max(high - low, 1e-30))
        drawn[..., band] = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255)
    return drawn if shown.shape[2] == 3 else np.repeat(drawn[..., :1], 3, 2)
