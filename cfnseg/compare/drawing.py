"""The pictures of a comparison: image, truth, both predictions and what B mends and breaks, small enough for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from cfnseg.compare.pictures import Shown
from cfnseg.data.labels import IGNORE, LabelMap
from cfnseg.report.pixels import address, photo, resized, size_within

SIDES = (560, 400, 280, 160)  # longest sides to try
BUDGET = 3_500_000  # bytes of all pictures together: with the rest, the page stays under 5 MB
MENDS, BREAKS = (29, 95, 209), (226, 74, 40)  # blue and orange: told apart by every eye


@dataclass(frozen=True)
class Strip:
    """One image: its row of compare.json, size in pixels, (heading, data: address or None) of each picture, and shares in 0..1.

    ``mended`` is the share of the counted pixels that A has wrong and B right, ``broken`` the other way about; None if unknown.
    """

    row: dict[str, Any]
    width: int
    height: int
    views: list[tuple[str, str | None]]
    mended: float | None
    broken: float | None


def strips(shown: list[Shown], rows: dict[str, dict[str, Any]], labels: LabelMap) -> list[Strip]:
    """A strip for each image; smaller ones where they weigh much."""
    drawn: list[Strip] = []
    for side in SIDES:
        drawn = [strip(picture, rows[picture.name], labels, side) for picture in shown]
        if sum(len(view or "") for s in drawn for _, view in s.views) <= BUDGET:
            break
    return drawn


def strip(picture: Shown, row: dict[str, Any], labels: LabelMap, side: int) -> Strip:
    """One strip with its longest side at most ``side`` pixels."""
    truth, size = picture.truth, size_within(*picture.truth.shape, side)
    image = resized(picture.image, size)
    masks = [None if mask is None else _colored(mask, labels, size) for mask in (truth, picture.a, picture.b)]
    views = [("image", photo(image)), *zip(("truth", "A", "B"), masks)]
    if picture.a is None or picture.b is None:
        return Strip(row, *size, [*views, ("B mends and breaks", None)], None, None)
    counted, right, now = truth != IGNORE, truth == picture.a, truth == picture.b
    mended, broken = counted & now & ~right, counted & right & ~now
    total = max(1, counted.sum())
    changes = _changes(image, *(cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for m in (mended, broken)))
    return Strip(row, *size, [*views, ("B mends and breaks", changes)], float(mended.sum() / total), float(broken.sum() / total))


def _colored(mask: np.ndarray, labels: LabelMap, size: tuple[int, int]) -> str:
    """A mask of train ids as a palette PNG, ignored pixels white."""
    small = Image.fromarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), mode="P")
    colors = np.full((256, 3), 255, np.uint8)
    colors[: len(labels)] = [label.color for label in labels.labels]
    small.putpalette(colors.tobytes())
    return address(small, "PNG", optimize=True)


def _changes(image: np.ndarray, mended: np.ndarray, broken: np.ndarray) -> str:
    """The image in pale gray, what was mended blue and what was broken orange."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    drawn = np.repeat((160 + gray * 0.35).astype(np.uint8)[..., None], 3, 2)
    drawn[mended], drawn[broken] = MENDS, BREAKS
    return address(Image.fromarray(drawn), "JPEG", quality=85, subsampling=0)  # full colour, so that a thin edge keeps its own
