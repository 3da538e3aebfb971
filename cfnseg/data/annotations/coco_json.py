"""COCO JSON of instances or stuff: polygons and run lengths.

Source: the data format at cocodataset.org. Roboflow writes train/_annotations.coco.json.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from cfnseg.data.annotations.json_text import json_files, member, read_json
from cfnseg.data.annotations.photographs import locate, split_of, tails
from cfnseg.data.annotations.regions import AnnotatedImage, Annotations, LazyRegions, Region
from cfnseg.data.files import existing
from cfnseg.errors import UserError


def read(source: Path, images: Path | None = None) -> Annotations:
    """Read a COCO JSON file, or all of a folder; an image of several files has the regions of all.

    The split is that of the file's or its folder's name. Crowds are ignored regions. A smaller
    region is on top. Images without a region are kept.

    Args:
        source: the file or folder.
        images: the photographs' folder; None = the source's.

    Raises:
        UserError: a missing file or one that is no COCO JSON, with file and annotation.
    """
    existing(source, "the COCO export", "Give its JSON file or folder.")
    files = json_files(source)
    if not files:
        raise UserError(f"{source} has no JSON file")
    names: dict[str, None] = {}
    merged: dict[Path, AnnotatedImage] = {}
    notes: list[str] = []
    for path in files:
        content = read_json(path)
        if len(files) > 1 and (not isinstance(content, dict) or "categories" not in content):
            notes.append(f"{path.name} has no categories and was left out")
            continue
        folders = [images] if images else [path.parent, source if source.is_dir() else path.parent]
        below = path.parent.name if source.is_dir() and path.parent != source else ""
        split = split_of(below, *re.split(r"[^a-z]+", path.stem.lower()))
        own = _read_file(path, content, folders, split, names, notes)
        counts = Counter(image.path for image in own)
        if twice := [p for p, count in counts.items() if count > 1]:
            raise UserError(f"{path}: {counts[twice[0]]} of its images are {twice[0]}; keep one")
        for image in own:
            other = merged.get(image.path)
            if other and other.size != image.size:
                raise UserError(f"{path}: two sizes of {image.path}: {other.size}, {image.size}")
            regions = functools.partial(_joined, other, image) if other else None
            merged[image.path] = AnnotatedImage(
                image.path,
                LazyRegions(regions) if regions else image.regions,
                (*other.files, path) if other else (path,),
                image.size,
                split=image.split or (other.split if other else ""),
            )
    return Annotations(list(names), list(merged.values()), notes=notes)


def _joined(a: AnnotatedImage, b: AnnotatedImage) -> list[Region]:
    return [*a.regions, *b.regions]


def _read_file(
    path: Path,
    content: Any,
    folders: list[Path],
    split: str,
    names: dict[str, None],
    notes: list[str],
) -> list[AnnotatedImage]:
    """The images of one file; adds to ``names`` and ``notes``."""
    records = {member(r, "id", (int, str), path): r for r in member(content, "images", list, path)}
    by_id = _categories(path, content, notes)
    names |= dict.fromkeys(by_id.values())
    own: dict[Any, list[dict]] = {key: [] for key in records}
    skipped: Counter[str] = Counter()
    for annotation in member(content, "annotations", list, path):
        where = f"{path}, annotation {str(annotation)[:60]}"
        if not isinstance(annotation, dict):
            raise UserError(f"{where}: expected an object")
        where = f"{path}, annotation {annotation.get('id')}"
        image, category = (annotation.get(k) for k in ("image_id", "category_id"))
        if image not in records:
            skipped["of an image that the file lacks"] += 1
        elif category not in by_id:
            skipped["of a category that the file lacks"] += 1
        elif why := _why_empty(annotation.get("segmentation"), records[image], where):
            skipped[why] += 1
        else:
            skipped["crowds, ignored"] += bool(annotation.get("iscrowd"))
            own[image].append(annotation)
    notes += [f"{path.name}: {n:,} regions {why}" for why, n in skipped.items() if n]
    given = [member(r, "file_name", str, f"{path}, image {key}") for key, r in records.items()]
    photos = locate([[name, *tails(name)] for name in given], folders, deep=True)
    return [
        AnnotatedImage(
            photo,
            LazyRegions(functools.partial(_regions, own[key], by_id)),
            (path,),
            _size(record) or _size_of_lengths(own[key]),
            split=split,
        )
        for photo, (key, record) in zip(photos, records.items())
    ]


def _categories(path: Path, content: Any, notes: list[str]) -> dict[int, str]:
    """Category id -> name, without the heading that Roboflow lists as a category of its own."""
    records = member(content, "categories", list, path)
    found = {
        member(r, "id", int, f"{path}, categories"): member(r, "name", str, f"{path}, categories")
        for r in records
    }
    used = {a.get("category_id") for a in content.get("annotations") or [] if isinstance(a, dict)}
    for record in records:
        below = [r for r in records if r is not record and r.get("supercategory") == record["name"]]
        heading = record.get("supercategory") == "none" and len(below) == len(records) - 1
        if below and heading and record["id"] not in used:
            del found[record["id"]]
            notes.append(f"{path.name}: the category {record['name']} only heads the others")
    return found


def _size(record: dict) -> tuple[int, int] | None:
    height, width = record.get("height"), record.get("width")
    return (int(height), int(width)) if height and width else None


def _size_of_lengths(annotations: list[dict]) -> tuple[int, int] | None:
    """(H, W) of the first run lengths."""
    shapes = (a["segmentation"] for a in annotations)
    return next((tuple(s["size"]) for s in shapes if isinstance(s, dict)), None)


def _why_empty(shape: Any, record: dict, where: str) -> str:
    """Why a segmentation has no pixels, "" if it has some; UserError for one of no known form."""
    if not shape:
        return "of a box alone, skipped"
    if isinstance(shape, list):
        if not all(
            isinstance(part, list)
            and len(part) % 2 == 0
            and all(isinstance(x, int | float) for x in part)
            for part in shape
        ):
            raise UserError(f"{where}: a polygon is no list of numbers x, y, x, y, ...")
        return "" if any(len(part) >= 6 for part in shape) else "of fewer than 3 points, skipped"
    if not isinstance(shape, dict) or not isinstance(shape.get("counts"), list | str):
        raise UserError(f"{where}: the segmentation is neither polygons nor run lengths")
    size = shape.get("size")
    if (
        not isinstance(size, list)
        or len(size) != 2
        or (_size(record) or tuple(size)) != tuple(size)
    ):
        raise UserError(f"{where}: run lengths of size {size}, the image has {_size(record)}")
    counts = shape["counts"]
    try:
        lengths = np.array(counts) if isinstance(counts, list) else run_lengths(counts)
        fits = lengths.dtype.kind == "i" and lengths.min() >= 0 and lengths.sum() == np.prod(size)
    except ValueError:
        fits = False
    if not fits:  # pycocotools would return pixels of free memory
        raise UserError(f"{where}: the run lengths do not fill an image of {size[1]}x{size[0]}")
    return ""


def _regions(annotations: list[dict], names: dict[int, str]) -> list[Region]:
    """The regions of an image's annotations, which `_why_empty` has let through."""
    found = []
    for a in annotations:
        name, shape, ignored = names[a["category_id"]], a["segmentation"], bool(a.get("iscrowd"))
        if isinstance(shape, list):
            rings = [np.array(part, np.float64).reshape(-1, 2) for part in shape]
            found.append(Region(name, rings, ignored=ignored))
            continue
        height, width = shape["size"]
        if isinstance(shape["counts"], list):
            code = rle.frPyObjects(shape, height, width)
        else:
            code = {"size": [height, width], "counts": shape["counts"].encode()}
        found.append(Region(name, pixels=rle.decode(code).astype(bool), ignored=ignored))
    return found


def run_lengths(text: str) -> np.ndarray:
    """The run lengths (n,) int64 of COCO's compressed text. Raises ValueError for other text.

    A number is digits of 5 bits, the lowest first, each a character from "0"; bit 5 says that
    another follows, and bit 4 of the last is the sign. From the fourth on, a number is the
    difference to the one two before.
    """
    digits = np.frombuffer(text.encode("latin-1"), np.uint8).astype(np.int64) - 48
    last = digits & 32 == 0
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or not last[-1]:
        raise ValueError("no run lengths")
    ends = np.flatnonzero(last)
    starts = np.r_[0, ends[:-1] + 1]
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, ends - starts + 1))
    if shifts.max() > 50:
        raise ValueError("a number of too many digits")
    lengths = np.add.reduceat((digits & 31) << shifts, starts)
    lengths -= np.where(digits[ends] & 16, 1 << (shifts[ends] + 5), 0)
    for first in (1, 2):
        lengths[first::2] = lengths[first::2].cumsum()
    return lengths
