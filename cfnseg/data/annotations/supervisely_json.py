"""Supervisely's project format: ``meta.json`` and ``dataset/ann/NAME.jpg.json``.

Source: Supervisely's documentation, "Supervisely annotation format" and "Coordinate System". An
export has whole numbers that name pixels: a rectangle includes its last row and column, so 1 is
added to them; a polygon's point is the rounded-down place in its pixel, so it is read as the
pixel's center, half a pixel to the right and down. Numbers with a fraction are continuous, with
(0, 0) at the image's top left corner, and are kept. A bitmap's ``origin`` is its top left pixel.
An alpha mask is a bitmap of 256 levels; a pixel is in the region from 128 on. An oriented box is a
rectangle turned about its center, by radians, clockwise. The objects are in drawing order.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.data.annotations.json_text import read_json
from cfnseg.data.annotations.parsing import (
    box,
    color_of,
    left_out,
    located,
    number,
    png_pixels,
    points,
    turned,
    whole,
)
from cfnseg.data.annotations.photographs import SPLITS, locate
from cfnseg.data.annotations.regions import AnnotatedImage, Annotations, Region
from cfnseg.data.decode import MOST_PIXELS
from cfnseg.data.files import list_files
from cfnseg.errors import UserError

HALF = 127  # the alpha up to which a pixel is not in a soft mask
EMPTY_CLASSES = ("point", "line", "graph")  # shapes of classes whose objects have no area


def is_ours(source: Path) -> bool:
    """Whether a folder, or the folder of a file, has ``meta.json`` and ``*/ann`` in it."""
    folder = source if source.is_dir() else source.parent
    if not (folder / "meta.json").is_file() or source.name not in (folder.name, "meta.json"):
        return False
    return any(path.is_dir() for path in (*folder.glob("*/ann"), *folder.glob("*/*/*/ann")))


def read(source: Path, images: Path | None = None) -> Annotations:
    """Read a project.

    Args:
        source: the project's folder, or its ``meta.json``.
        images: the folder of the photographs, with or without folders for the data sets; None:
            ``img/`` beside each ``ann/``.

    Raises:
        UserError: no project of images, or a damaged file or object.
    """
    meta = source / "meta.json" if source.is_dir() else source
    folder = meta.parent
    names, colors = _classes(meta)
    files = [p for p in list_files(folder, deep=True) if p.parent.name == "ann"]
    files = [p for p in files if p.suffix.lower() == ".json"]
    if not files:
        raise UserError(f"{folder}: no annotation files; expected <data set>/ann/<image>.json")
    skipped: Counter[str] = Counter()
    photos, found = [], []
    for path in files:
        size, regions = _annotation(path, skipped)
        dataset = path.parent.parent.relative_to(folder)
        within = "/".join(part for part in dataset.parts if part != "datasets")
        photos.append(_photograph(path, dataset, within, images))
        # nested data sets are in folders called datasets
        splits = [SPLITS[part.lower()] for part in dataset.parts if part.lower() in SPLITS]
        found.append((size, regions, splits[-1] if splits else ""))
    paths = locate(photos, [images or folder], bool(images))
    names += sorted({r.name for _, regions, _ in found for r in regions} - set(names))
    notes = left_out(skipped)
    return Annotations(
        names,
        [
            AnnotatedImage(photo, regions, (path,), size, True, split)
            for path, photo, (size, regions, split) in zip(files, paths, found)
        ],
        colors=colors,
        notes=notes,
    )


def _classes(meta: Path) -> tuple[list[str], dict[str, tuple[int, int, int]]]:
    """The names and colours of ``meta.json``."""
    data = read_json(meta)
    names: list[str] = []
    colors = {}
    with located(f"{meta}, classes"):
        kind = data.get("projectType", "images")
        if kind != "images":
            raise UserError(f"{meta}: a project of {kind}, expected images")
        for item in data["classes"]:
            name = str(item["title"])
            if name not in names and item.get("shape") not in EMPTY_CLASSES:
                names.append(name)
                if color := color_of(item.get("color")):
                    colors[name] = color
    return names, colors


def _photograph(path: Path, dataset: Path, within: str, images: Path | None) -> list[str]:
    """The paths that a photograph may have, relative to where it is looked for."""
    name = path.name.removesuffix(path.suffix)
    if not Path(name).suffix:  # NAME.json, as older projects have it
        folder = (images / within if images else path.parent.parent) / "img"
        same = sorted(p for p in folder.glob("*") if p.stem == name)
        name = same[0].name if same else name
    own = f"{dataset.as_posix()}/img/{name}"
    return [own] if images is None else [own, f"{within}/img/{name}", f"{within}/{name}", name]


def _annotation(path: Path, skipped: Counter[str]) -> tuple[tuple[int, int], list[Region]]:
    """(H, W) and the regions of one annotation file."""
    data = read_json(path)
    with located(f"{path}, size"):
        size = whole(data["size"]["height"]), whole(data["size"]["width"])
    regions = []
    with located(f"{path}, objects"):
        objects = list(data["objects"])
    for index, item in enumerate(objects):
        with located(f"{path}, object {index}"):
            kind = item.get("geometryType") or ("bitmap" if item.get("bitmap") else "polygon")
            region = _region(kind, item)
            if region is None:
                skipped[kind] += 1
            else:
                regions.append(region)
    return size, regions


def _region(kind: str, item: Mapping[str, Any]) -> Region | None:
    """An object as a region, None if it is none; ValueError or KeyError for a damaged one."""
    name = str(item["classTitle"])
    if kind in ("bitmap", "alpha_mask"):
        x, y = (whole(value) for value in item["bitmap"]["origin"])
        soft = kind == "alpha_mask"  # gray values are its alpha, black marked transparent or not
        pixels = png_pixels(_png(item["bitmap"]["data"]), clear=not soft)
        return Region(name, pixels=pixels > (HALF if soft else 0), corner=(x, y))
    if kind in ("rectangle", "oriented_bbox"):
        given = item["points"]
        ends = points(given["exterior"] if isinstance(given, dict) else given)
        (left, top), (right, bottom) = ends.min(0), ends.max(0) + _are_pixels(ends)
        center = (left + right) / 2, (top + bottom) / 2
        angle = math.degrees(number(item.get("angle") or 0)) if kind == "oriented_bbox" else 0
        return Region(name, [turned(box(left, top, right, bottom), angle, center)])
    if kind == "polygon":
        rings = [points(ring) for ring in _rings(item["points"])]
        rings = [ring + 0.5 * _are_pixels(ring) for ring in rings]
        return Region(name, rings[:1], rings[1:])
    return None


def _rings(given: Mapping[str, Any]) -> Sequence[Any]:
    """The outer ring and the holes."""
    return [given["exterior"], *(given.get("interior") or [])]


def _are_pixels(ring: np.ndarray) -> bool:
    """Whether all coordinates are whole numbers, which name pixels."""
    return bool((ring == np.floor(ring)).all())


def _png(text: str) -> bytes:
    """The PNG in a text of base64, which zlib may have compressed; ValueError for damaged data."""
    packed = base64.b64decode(text, validate=True)
    if packed.startswith(b"\x89PNG"):
        return packed
    try:
        return zlib.decompressobj().decompress(packed, MOST_PIXELS)
    except zlib.error as error:
        raise ValueError(f"its bitmap is damaged: {error}") from None
