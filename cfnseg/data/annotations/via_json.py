"""VGG Image Annotator 2: project and annotation files in JSON, and annotations in CSV.

Source: the CodeDoc of VIA 2 and its ``via.js``. Coordinates are those of the image's canvas:
continuous, usually rounded, with (0, 0) at the top left corner; ``theta`` is in radians,
clockwise. The class of a region is the value of a region attribute. The format has no drawing
order and no size of the image.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cfnseg.data.annotations.json_text import read_json
from cfnseg.data.annotations.parsing import (
    box,
    count_of,
    ellipse,
    head,
    left_out,
    located,
    number,
    only_file,
    points,
    without_class,
)
from cfnseg.data.annotations.photographs import locate, tails
from cfnseg.data.annotations.regions import AnnotatedImage, Annotations, Region
from cfnseg.data.files import read_text
from cfnseg.errors import UserError

CLASS_ATTRIBUTES = ("label", "class", "name", "type")
COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
OBJECT = "object"  # the class of all regions where the file has no attribute


class Entry(NamedTuple):
    """One image of a file.

    Attributes:
        name: of the photograph, or its path or URL.
        regions: shape attributes and region attributes.
        place: for errors.
    """

    name: str
    regions: list[tuple[Mapping[str, Any], Mapping[str, Any]]]
    place: str


def is_ours(source: Path) -> bool:
    """Whether a file, or one of the folder's, starts as VIA's JSON or CSV does."""
    if source.is_dir():
        return any(is_ours(p) for p in sorted(source.iterdir()) if p.is_file())
    kind = source.suffix.lower()
    if kind == ".csv":
        return all(column in head(source, 400) for column in COLUMNS)
    start = head(source, 1 << 16) if kind == ".json" else ""
    if not start.lstrip("ï»¿ \r\n\t").startswith("{"):
        return False
    return '"_via_' in start or ('"regions"' in start and '"filename"' in start)


def read(source: Path, images: Path | None = None) -> Annotations:
    """Read a file.

    Args:
        source: the JSON or CSV file, or a folder with one.
        images: the folder of the photographs; None: the project's own folder, the file's folder,
            or ``images/`` in it.

    Raises:
        UserError: no JSON or CSV of VIA 2, a damaged region, or several attributes of which none
            or more than one is called label, class, name or type.
    """
    path = only_file(source, "*.*", is_ours)
    declared: Mapping[str, Any] = {}
    own = ""
    if path.suffix.lower() == ".csv":
        entries = _from_csv(path)
    else:
        data = read_json(path)
        if isinstance(data, dict) and "_via_img_metadata" in data:
            with located(f"{path}, settings"):
                declared = dict((data.get("_via_attributes") or {}).get("region") or {})
                core = (data.get("_via_settings") or {}).get("core") or {}
                own = str(core.get("default_filepath") or "")
            data = data["_via_img_metadata"]
        entries = _from_json(data, path)
    attribute = _attribute(entries, declared, path)
    skipped: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    found = [_regions(entry, attribute, skipped, counts) for entry in entries]
    names = []
    if attribute:
        with located(f"{path}, attribute {attribute}"):
            names = [str(name) for name in (declared.get(attribute) or {}).get("options") or {}]
    names += sorted({r.name for regions in found for r in regions if not r.ignored} - set(names))
    folders = [images] if images else [path.parent / own, path.parent / "images", path.parent]
    photos = locate([tails(entry.name) or [entry.name] for entry in entries], folders, bool(images))
    notes = [*left_out(skipped), *without_class(counts["unnamed"])]
    if counts["many"]:
        notes.append(
            f"{count_of(counts['many'], 'region')} with several classes: the first is used"
        )
    if attribute is None and any(found):
        notes.append(f"no region has an attribute: all are of the class {OBJECT!r}")
    annotated = [AnnotatedImage(p, regions, (path,)) for p, regions in zip(photos, found)]
    return Annotations(names, annotated, notes=notes)


def _from_json(data: Any, path: Path) -> list[Entry]:
    """The images of an annotation file, or of a project's ``_via_img_metadata``."""
    if not isinstance(data, dict):
        raise UserError(f"{path}: not VIA's JSON: expected images by key")
    entries = []
    for key, item in data.items():
        place = f"{path}, image {key}"
        with located(place):
            given = item["regions"]
            regions = list(given.values()) if isinstance(given, dict) else list(given)
            pairs = [
                (dict(r["shape_attributes"]), dict(r.get("region_attributes") or {}))
                for r in regions
            ]
            entries.append(Entry(_text(item["filename"]), pairs, place))
    return entries


def _from_csv(path: Path) -> list[Entry]:
    """The images of a CSV file: a row for each region, or one for an image without regions."""
    text = read_text(path).removeprefix("#")
    limit = csv.field_size_limit(sys.maxsize >> 32)  # long polygons; a C long may have 32 bits
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if missing := [c for c in COLUMNS if c not in (reader.fieldnames or ())]:
            raise UserError(f"{path}: not VIA 2's CSV: no column {', '.join(missing)}")
        entries: dict[tuple[str, str], Entry] = {}
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            with located(place):
                shape, values = (_object(row[column]) for column in COLUMNS[1:])
                key = _text(row["filename"]), str(row.get("file_size"))
                entry = entries.setdefault(key, Entry(key[0], [], place))
                if shape:
                    entry.regions.append((shape, values))
    except csv.Error as error:
        line = reader.reader.line_num
        raise UserError(f"{path}, line {line}: not CSV, or cut off ({error})") from None
    finally:
        csv.field_size_limit(limit)
    return list(entries.values())


def _object(text: str | None) -> dict[str, Any]:
    """A JSON object of a CSV field; ValueError for anything else."""
    if text is None:
        raise ValueError("too few columns")
    found = json.loads(text or "{}")
    if not isinstance(found, dict):
        raise ValueError(f"{text[:40]!r} is no JSON object")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no file name")
    return value


def _attribute(entries: list[Entry], declared: Mapping[str, Any], path: Path) -> str | None:
    """The attribute that is the class; None if no region has one. UserError if it is unclear."""
    used = {name for entry in entries for _, values in entry.regions for name in values}
    names = sorted(used | {str(name) for name in declared})
    if len(names) < 2:
        return names[0] if names else None
    likely = [name for name in names if name.strip().lower() in CLASS_ATTRIBUTES]
    if len(likely) == 1:
        return likely[0]
    raise UserError(
        f"{path}: which region attribute is the class? There are {', '.join(names)}; "
        f"expected one attribute, or one called {', '.join(CLASS_ATTRIBUTES)}"
    )


def _regions(
    entry: Entry, attribute: str | None, skipped: Counter[str], counts: Counter[str]
) -> list[Region]:
    found = []
    for index, (shape, values) in enumerate(entry.regions):
        with located(f"{entry.place}, region {index} ({shape.get('name')})"):
            kind = shape["name"]
            outline = _outline(kind, shape)
            if outline is None:
                skipped[str(kind)] += 1
                continue
            name = OBJECT if attribute is None else _class(values.get(attribute), counts)
            counts["unnamed"] += not name
            found.append(Region(name, [outline], ignored=not name))
    return found


def _class(value: Any, counts: Counter[str]) -> str:
    """The class of an attribute's value: a text, or a checkbox's {text: is it checked?}."""
    if isinstance(value, dict):
        checked = [str(key) for key, yes in value.items() if yes]
        counts["many"] += len(checked) > 1
        return checked[0] if checked else ""
    return "" if value is None else str(value).strip()


def _outline(kind: str, shape: Mapping[str, Any]) -> np.ndarray | None:
    """The outline (n, 2) of a shape, None if it has no area; ValueError or KeyError if damaged."""
    if kind == "polygon":
        across, down = shape["all_points_x"], shape["all_points_y"]
        if len(across) != len(down):
            raise ValueError(f"{len(across)} x and {len(down)} y")
        return points(list(zip(across, down)))
    if kind == "rect":
        x, y, width, height = (number(shape[key]) for key in ("x", "y", "width", "height"))
        return box(x, y, x + width, y + height)
    if kind == "circle":
        x, y, radius = (number(shape[key]) for key in ("cx", "cy", "r"))
        return ellipse(x, y, radius, radius)
    if kind == "ellipse":
        x, y, across, down = (number(shape[key]) for key in ("cx", "cy", "rx", "ry"))
        return ellipse(x, y, across, down, math.degrees(number(shape.get("theta") or 0)))
    return None
