"""LabelMe JSON: one file an image; polygons, rectangles, circles and masks.

Source: the tool's own labelme/shape.py and labelme/label_file.py.
"""

from __future__ import annotations

import base64
import binascii
import functools
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.data.annotations.json_text import json_files, member, read_json
from cfnseg.data.annotations.photographs import locate, split_of, tails
from cfnseg.data.annotations.regions import AnnotatedImage, Annotations, LazyRegions, Region
from cfnseg.data.decode import shown_pixels
from cfnseg.data.files import existing, read_text
from cfnseg.errors import UserError, first_line

POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}  # the fewest of a shape
OUTLINE = 64  # corners of a circle
IGNORED, BACKGROUND = "__ignore__", "_background_"  # the tool's own names


def read(source: Path, images: Path | None = None) -> Annotations:
    """Read a folder of LabelMe files, or one file.

    A later shape is on top, as the tool itself draws them. The label ``__ignore__`` ignores,
    ``_background_`` is the background. A labels.txt gives the classes' order, else they are sorted.
    Shapes without an area are skipped. The parts that a ``group_id`` joins stay regions of their
    own, as a mask of classes has no objects.

    Args:
        source: the folder, with deeper folders, or the file.
        images: the photographs' folder; None = where ``imagePath`` says, else ``imageData``.

    Raises:
        UserError: a missing file or one that is no LabelMe file, with its name.
    """
    existing(source, "the LabelMe export", "Give its folder or a JSON file.")
    folder = source if source.is_dir() else source.parent
    files, used, notes = [], set(), []
    skipped: Counter[str] = Counter()
    for path in json_files(source):
        content = read_json(path)
        if source.is_dir() and not (isinstance(content, dict) and "shapes" in content):
            notes.append(f"{path.relative_to(source)} has no shapes and was left out")
            continue
        shapes = _shapes(content, path, skipped)
        used |= {shape["label"] for shape in shapes}
        files.append((path, content, shapes))
    if not files:
        raise UserError(f"{source} has no LabelMe file: JSON with imagePath and shapes")
    listed = folder / "labels.txt"
    order = [x.strip() for x in read_text(listed).splitlines()] if listed.is_file() else []
    names = [x for x in dict.fromkeys([*order, *sorted(used)]) if x not in ("", IGNORED)]
    notes += [f"{n:,} shapes {why} were skipped" for why, n in skipped.items()]
    photos = locate([_names(path, content) for path, content, _ in files], [images or folder], True)
    found = [_image(photo, folder, *file) for photo, file in zip(photos, files)]
    background = BACKGROUND if BACKGROUND in names else "background"
    return Annotations(names, found, background, notes=notes)


def _shapes(content: Any, path: Path, skipped: Counter[str]) -> list[dict]:
    """The shapes that have an area, each checked; counts the others."""
    kept = []
    for number, shape in enumerate(member(content, "shapes", list, path), 1):
        where = f"{path}, shape {number}"
        member(shape, "label", str, where)
        kind = shape.get("shape_type") or "polygon"
        points = member(shape, "points", list, where)
        if kind not in POINTS:
            skipped[f"of type {kind}"] += 1
        elif len(points) < POINTS[kind]:
            skipped[f"of type {kind} with fewer than {POINTS[kind]} points"] += 1
        else:
            try:
                corners = np.array(points, np.float64)
            except (TypeError, ValueError):
                corners = np.zeros(0)
            if corners.ndim != 2 or corners.shape[1] != 2 or not np.isfinite(corners).all():
                raise UserError(f"{where}: expected points [x, y], got {str(points)[:60]}")
            kept.append({**shape, "shape_type": kind, "points": corners, "where": where})
    return kept


def _names(path: Path, content: dict) -> list[str]:
    """The paths that the photograph may have, the most exact first."""
    name = str(content.get("imagePath") or f"{path.stem}.jpg").replace("\\", "/")
    return [os.path.normpath(path.parent / name), *tails(name)]


def _image(
    photo: Path, folder: Path, path: Path, content: dict, shapes: list[dict]
) -> AnnotatedImage:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    regions = (
        LazyRegions(functools.partial(_regions, shapes))
        if any(shape["shape_type"] == "mask" for shape in shapes)
        else _regions(shapes)
    )
    return AnnotatedImage(
        photo,
        regions,
        (path,),
        (int(height), int(width)) if height and width else None,
        ordered=True,
        split=split_of(*path.relative_to(folder).parts[:-1]),
        embedded=functools.partial(_embedded, path) if content.get("imageData") else None,
    )


def _regions(shapes: list[dict]) -> list[Region]:
    return [_region(shape) for shape in shapes]


def _region(shape: dict) -> Region:
    name, points, ignored = shape["label"], shape["points"], shape["label"] == IGNORED
    if shape["shape_type"] == "mask":
        x, y = np.rint(points[0]).astype(int).tolist()
        return Region(name, pixels=_mask(shape), corner=(x, y), ignored=ignored)
    if shape["shape_type"] == "rectangle":
        (x, y), (right, bottom) = points.min(0), points.max(0)
        points = np.array([[x, y], [right, y], [right, bottom], [x, bottom]])
    if shape["shape_type"] == "circle":  # its centre, and a point on it
        angles = np.linspace(0, 2 * np.pi, OUTLINE, endpoint=False)
        radius = np.hypot(*(points[1] - points[0]))
        points = points[0] + radius * np.c_[np.cos(angles), np.sin(angles)]
    return Region(name, [points], ignored=ignored)


def _mask(shape: dict) -> np.ndarray:
    """(h, w) bool: the pixels of a shape of type mask, a PNG in base64."""
    try:
        data = base64.b64decode(member(shape, "mask", str, shape["where"]))
        return shown_pixels(data)[0] > 0
    except (binascii.Error, OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{shape['where']}: damaged mask ({first_line(error)})") from None


def _embedded(path: Path) -> bytes:
    """The photograph inside a LabelMe file."""
    try:
        return base64.b64decode(member(read_json(path), "imageData", str, path))
    except binascii.Error as error:
        raise UserError(f"{path}: damaged imageData ({error})") from None
