"""convert.html: what was understood of an export, in one file."""

from __future__ import annotations

from typing import Any

import numpy as np

from cfnseg.data.annotations.class_lines import Classes
from cfnseg.data.labels import IGNORE
from cfnseg.drawing import View, fitted, overlay, shrink, thumbnail
from cfnseg.report.html import render

SIDES = (480, 360, 240, 160)  # longest sides of pictures to try
Picture = tuple[str, str, np.ndarray, np.ndarray]


def convert_page(
    kind: str,
    source: str,
    splits: dict[str, int],
    rows: list[dict[str, Any]],
    notes: list[str],
    pictures: list[Picture],
    classes: Classes,
) -> str:
    """The page.

    Args:
        kind, source: the format and where the export is.
        splits: number of images by split.
        rows: of each class: id, name, color, images, regions, pixels, share in 0..1.
        notes: a line each.
        pictures: split, name, image (h, w, 3) uint8 RGB and its train ids (h, w).
        classes: that were written.
    """
    strips = fitted(
        lambda side: [_strip(picture, side, classes) for picture in pictures],
        SIDES,
        lambda drawn: sum(len(view.picture or "") for strip in drawn for view in strip["views"]),
    )
    return render(
        "convert",
        kind=kind,
        source=source,
        splits=splits,
        rows=rows,
        notes=notes,
        strips=strips,
        most=max(row["share"] for row in rows) or 1,
    )


def _strip(picture: Picture, side: int, classes: Classes) -> dict[str, Any]:
    """Photograph and overlay of an image, with the classes that it has."""
    split, name, image, train = picture
    image, train = shrink(image, side), shrink(train, side, ids=True)
    views = []
    for heading, drawn in (("Photograph", image), ("Mask", overlay(image, train, classes.labels))):
        data, width, height = thumbnail(drawn, side)
        views.append(View(heading, data, "", width, height))
    there = [classes.labels.labels[i] for i in np.unique(train[train != IGNORE]).tolist()]
    return {
        "name": name,
        "split": split,
        "views": views,
        "names": [label.name for label in there],
        "colors": [label.color for label in there],
    }
