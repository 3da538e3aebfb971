"""YOLO segmentation labels: ``data.yaml`` or ``classes.txt``, and polygons as text for each image.

Source: Ultralytics' documentation, "Instance Segmentation Datasets Overview". A line is ``class x1
y1 x2 y2 ...`` with x and y in fractions of the width and height of the photograph, upright by its
EXIF orientation; they are continuous, with (0, 0) at the top left corner. The labels of
``images/a.jpg`` are in ``labels/a.txt``. The format has no drawing order. Holes are part of a
polygon, by a seam.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.data.annotations.parsing import count_of, head, only_file, upright_size
from cfnseg.data.annotations.photographs import split_of
from cfnseg.data.annotations.regions import AnnotatedImage, Annotations, Region
from cfnseg.data.files import existing, is_image, list_images, read_text
from cfnseg.errors import UserError, first_line

# class names by index; split and label file by photograph; notes
Parts = tuple[dict[int, str], dict[Path, tuple[str, Path]], list[str]]
CLASSES = "classes.txt"  # what Label Studio and LabelImg write in place of data.yaml
SPLIT_KEYS = ("train", "val", "test")
NAMES = re.compile(r"^['\"]?names['\"]?\s*:", re.MULTILINE)
FOLDERS = re.compile(r"^['\"]?(train|val|test)['\"]?\s*:", re.MULTILINE)


def is_ours(source: Path) -> bool:
    """Whether a YAML file, or one of the folder's, has names and a train, val or test folder."""
    if source.is_dir():
        return any(is_ours(p) for p in sorted(source.glob("*.y*ml")))
    start = head(source, 1 << 18)
    yaml = source.suffix.lower() in (".yaml", ".yml")
    return yaml and bool(NAMES.search(start) and FOLDERS.search(start))


def read(source: Path, images: Path | None = None) -> Annotations:
    """Read a data set.

    Args:
        source: ``data.yaml``, else ``classes.txt``, or its folder.
        images: the folder of the photographs, in place of the folder ``images``; None: where
            ``data.yaml`` has them.

    Raises:
        UserError: neither file, no YAML, no folder of images, boxes in place of polygons, or a line
            that is wrong.
    """
    listed = source / CLASSES if source.is_dir() else source
    if listed.name == CLASSES and not is_ours(source):
        names, files, notes = _without_yaml(listed, images)
    else:
        names, files, notes = _with_yaml(only_file(source, "*.y*ml", is_ours), images)
    if not any(label.is_file() for _, label in files.values()):
        _, first = next(iter(files.values()))
        raise UserError(f"{source}: none of {len(files)} images has a label file, such as {first}")
    found = []
    for photo, (split, label) in files.items():
        size = upright_size(photo)
        regions = _regions(label, names, size)
        found.append(AnnotatedImage(photo, regions, (label,), size, split=split))
    return Annotations(list(names.values()), found, notes=notes)


def _with_yaml(path: Path, images: Path | None) -> Parts:
    """The parts of a data set with a ``data.yaml``."""
    data = _settings(path)
    names = _names(data.get("names"), path)
    root = _root(data.get("path"), path)
    notes: list[str] = []
    found: dict[Path, tuple[str, Path]] = {}
    twice = 0
    for split in (key for key in SPLIT_KEYS if data.get(key)):
        given = data[split] if isinstance(data[split], list) else [data[split]]
        for value in given:
            if not isinstance(value, str):
                raise UserError(f"{path}: {split} is {value!r}, expected a folder")
            files = _files(value, root, path.parent, images)
            if files is None:
                notes.append(f"{split}: {value} is not there")
                continue
            for photo, label in files:
                twice += photo in found
                found.setdefault(photo, (split, label))
    if not found:
        missing = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(f"{path}: no images of train, val or test{missing}; folders are in {root}")
    if twice:
        notes.append(f"{count_of(twice, 'image')} in several splits: the first counts")
    return names, found, notes


def _without_yaml(listed: Path, images: Path | None) -> Parts:
    """The parts of a data set with ``classes.txt``, a name a line; folders may name splits."""
    remedy = "It has a class name a line; or give data.yaml."
    lines = read_text(existing(listed, "the list of classes", remedy)).rstrip().splitlines()
    names = _names([line.strip() for line in lines], listed)
    folder = images or listed.parent
    found = {}
    for photo in list_images(folder, True)[0]:
        within = photo.relative_to(folder)
        own = listed.parent / "labels" / within.with_suffix(".txt")
        found[photo] = split_of(*within.parts[:-1]), own if images else _label(photo)
    if not found:
        raise UserError(f"{listed}: no images in {folder}; give their folder with --images DIR")
    return names, found, []


def _settings(path: Path) -> Mapping[str, Any]:
    """The content of ``data.yaml``."""
    import yaml

    try:
        data = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or first_line(error)
        raise UserError(f"{path}{where}: not YAML ({reason})") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected names, train and val, got {type(data).__name__}")
    return data


def _names(given: Any, path: Path) -> dict[int, str]:
    """The class names by index."""
    pairs = given.items() if isinstance(given, dict) else enumerate(given or [])
    if isinstance(given, str) or not given or not isinstance(given, dict | list):
        raise UserError(f"{path}: names is {given!r}, expected the class names")
    try:
        names = {int(index): str(name) for index, name in pairs}
    except (TypeError, ValueError):
        raise UserError(f"{path}: names has keys that are no whole numbers") from None
    if "" in names.values():
        raise UserError(f"{path}: a class without a name")
    if twice := sorted({n for n in names.values() if list(names.values()).count(n) > 1}):
        raise UserError(f"{path}: names has {twice[0]!r} twice; give each class its own name")
    return dict(sorted(names.items()))


def _root(given: Any, path: Path) -> Path:
    """The data set's folder: ``path`` of the file if it is there, else the file's own folder."""
    folder = path.parent / str(given or "")
    return folder if folder.is_dir() else path.parent


def _files(
    value: str, root: Path, beside: Path, images: Path | None
) -> list[tuple[Path, Path]] | None:
    """The photographs of a folder or list, each with its label file; None if it is not there."""
    # exporters write ../train/images for a folder beside data.yaml
    inside = re.sub(r"^(\./|(\.\./)+)", "", value.replace("\\", "/"))
    places = [root / value, root / inside, beside / inside]
    if listing := next((p for p in places if p.suffix == ".txt" and p.is_file()), None):
        return _listed(listing, images)
    if images is None:
        folder = next((p for p in places if p.is_dir()), None)
        return None if folder is None else [(p, _label(p)) for p in list_images(folder, True)[0]]
    part = "/".join(p for p in inside.split("/") if p != "images")
    folder = next((p for p in (images / inside, images / part) if p.is_dir()), images)
    labels = next((p for p in map(_labels, places) if p.is_dir()), None)
    if labels is None:
        return None
    files = list_images(existing(folder, "images", "Name the folder of the photographs"), True)[0]
    pairs = [(p, labels / p.relative_to(folder).with_suffix(".txt")) for p in files]
    # a folder for all splits: the label files tell whose the photographs are
    return [pair for pair in pairs if folder != images or pair[1].is_file()]


def _label(photo: Path) -> Path:
    """The label file of a photograph: in the folder of the labels, or beside the photograph."""
    places = _labels(photo.parent) / f"{photo.stem}.txt", photo.with_suffix(".txt")
    return next((p for p in places if p.is_file()), places[0])


def _listed(listing: Path, images: Path | None) -> list[tuple[Path, Path]]:
    """The photographs that a text file lists, relative to its folder."""
    pairs = []
    for number, line in enumerate(read_text(listing).splitlines(), 1):
        if not (name := line.strip().replace("\\", "/")):
            continue
        own = listing.parent / name
        if not is_image(own):
            raise UserError(f"{listing}, line {number}: {name!r} is no image by its suffix")
        inside = re.sub(r"^(\./)?(images/)?", "", name)
        photo = own if images is None else images / inside
        remedy = f"It is in line {number} of {listing}"
        pairs.append((existing(photo, "image", remedy), _label(own)))
    return pairs


def _labels(folder: Path) -> Path:
    """The folder of the labels: the last folder ``images`` of the path is ``labels``."""
    parts = list(folder.parts)
    for index in reversed(range(len(parts))):
        if parts[index] == "images":
            parts[index] = "labels"
            return Path(*parts)
    return folder


def _regions(path: Path, names: Mapping[int, str], size: tuple[int, int]) -> list[Region]:
    """The regions of a label file; none if it is missing or empty."""
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        place = f"{path}, line {number}"
        try:
            values = np.array([float(field) for field in fields])
        except ValueError:
            raise UserError(f"{place}: {line.strip()[:60]!r} has more than numbers") from None
        if not np.isfinite(values).all():
            raise UserError(f"{place}: a number is not finite")
        if len(values) == 5:
            raise UserError(f"{place}: boxes, not polygons; cfnseg needs `class x1 y1 x2 y2 ...`")
        if len(values) < 7 or len(values) % 2 == 0:
            raise UserError(
                f"{place}: {len(values)} numbers, expected a class and at least 3 pairs x y"
            )
        if values[0] not in names:
            raise UserError(f"{place}: class {fields[0]}, expected one of {_range(names)}")
        outline = values[1:].reshape(-1, 2) * (size[1], size[0])
        found.append(Region(names[int(values[0])], [outline]))
    return found


def _range(names: Mapping[int, str]) -> str:
    keys = list(names)
    return f"{keys[0]}..{keys[-1]}" if len(keys) == keys[-1] - keys[0] + 1 else str(keys)
