"""Label Studio's JSON and JSON-MIN exports of image tasks.

Source: Label Studio's documentation, "Units of image annotations" and the tags ``RectangleLabels``
and ``EllipseLabels``. Coordinates are percents of the image's width and height, continuous, with
(0, 0) at its top left corner. ``rotation`` is in degrees, clockwise: a rectangle turns about its
top left corner, an ellipse about its center. A brush is the RGBA picture of the whole image in the
run-length code of ``rle-pack`` (github.com/thi-ng/umbrella), a bitmask is a PNG of the whole image
in a data URL, black on a clear ground. A pixel is in the region if its alpha is at least 128. The
format has no drawing order and no list of the classes.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from cfnseg.data.annotations.json_text import read_json
from cfnseg.data.annotations.parsing import (
    box,
    count_of,
    cropped,
    ellipse,
    head,
    left_out,
    located,
    number,
    only_file,
    png_pixels,
    points,
    turned,
    upright_size,
    whole,
    without_class,
)
from cfnseg.data.annotations.photographs import locate, tails
from cfnseg.data.annotations.regions import AnnotatedImage, Annotations, Region
from cfnseg.data.decode import MOST_PIXELS
from cfnseg.data.files import is_image
from cfnseg.errors import UserError

UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # what an upload puts before the file's name
MINIMAL = re.compile(r'"\w+labels"\s*:\s*\[')


def is_ours(source: Path) -> bool:
    """Whether a file, or one of the folder's, starts as a list of Label Studio's tasks."""
    if source.is_dir():
        return any(is_ours(path) for path in source.glob("*.json"))
    start = head(source, 1 << 16).lstrip("ï»¿ \r\n\t")
    if source.suffix.lower() != ".json" or not start.startswith("["):
        return False
    full = '"data"' in start or '"annotations"' in start
    return (full and '"result"' in start) or bool(MINIMAL.search(start))


def read(source: Path, images: Path | None = None) -> Annotations:
    """Read an export.

    Args:
        source: the JSON file, or a folder with one.
        images: the folder of the photographs, which are found by base name, with or without the
            prefix of an upload; None: ``images/`` beside the file, or its folder.

    Raises:
        UserError: no JSON, a damaged shape or run-length code, or a task without an image.
    """
    path = only_file(source, "*.json", is_ours)
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{path}: not Label Studio's JSON export: expected a list of tasks")
    places, names, kept = [], [], []
    counts: Counter[str] = Counter()
    full = all("annotations" in task or "data" in task for task in tasks)
    for index, task in enumerate(tasks if full else _from_minimal(tasks)):
        place = f"{path}, task {task.get('id', index)}"
        with located(place):
            results = _results(task, counts)
            if results is None:
                continue
            if any(number(item.get("image_rotation", 0)) % 360 for item in results):
                counts["turned"] += 1
                continue
            names.append(_names(task["data"], place))
            places.append(place)
            kept.append(results)
    folders = [images] if images else [path.parent / "images", path.parent]
    photos = locate(names, folders, bool(images))
    skipped: Counter[str] = Counter()
    found = []
    for place, photo, results in zip(places, photos, kept):
        with located(place):
            size = _size(results, photo)
        # without a size there is nothing to draw, only to count
        regions = _regions(results, size or (1, 1), place, skipped, counts)
        found.append(AnnotatedImage(photo, regions, (path,), size))
    classes = sorted({r.name for image in found for r in image.regions if not r.ignored})
    return Annotations(classes, found, notes=[*left_out(skipped), *_notes(counts)])


def _notes(counts: Counter[str]) -> list[str]:
    texts = {
        "several": ("task", "with several annotations: the latest is used"),
        "cancelled": ("cancelled annotation", "left out"),
        "bare": ("task", "without an annotation left out"),
        "turned": ("image", "turned in the tool (image_rotation) left out"),
        "many": ("region", "with several labels: the first is used"),
    }
    notes = [
        f"{count_of(counts[key], one)} {rest}" for key, (one, rest) in texts.items() if counts[key]
    ]
    return [*notes, *without_class(counts["unnamed"])]


def _from_minimal(tasks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """JSON-MIN's annotations, each an entry, as tasks of the full form."""
    found: dict[str, dict[str, Any]] = {}
    for index, given in enumerate(tasks):
        task = found.setdefault(str(given.get("id", f"#{index}")), {"data": {}, "annotations": []})
        result = []
        for key, values in given.items():
            if isinstance(values, str):
                task["data"][key] = values
            for value in values if isinstance(values, list) else []:
                if isinstance(value, dict):
                    kind = next((k for k in value if k.endswith("labels")), "")
                    result.append({**value, "type": kind, "value": value})
        dates = {key: given.get(key) for key in ("updated_at", "created_at")}
        task["id"] = given.get("id", index)
        task["annotations"].append({**dates, "id": given.get("annotation_id"), "result": result})
    return list(found.values())


def _results(task: Mapping[str, Any], counts: Counter[str]) -> list[Mapping[str, Any]] | None:
    """The result of a task's latest annotation; None without one."""
    every = task.get("annotations", task.get("completions")) or []
    kept = [a for a in every if not a.get("was_cancelled")]
    counts["cancelled"] += len(every) - len(kept)
    counts["several"] += len(kept) > 1
    counts["bare"] += not kept
    if not kept:
        return None
    latest = max(
        kept,
        key=lambda a: (
            str(a.get("updated_at") or a.get("created_at") or ""),
            int(a.get("id") or 0),
        ),
    )
    return list(latest.get("result") or [])


def _names(data: Mapping[str, Any], place: str) -> list[str]:
    """The paths that a task's photograph may have, the most exact first."""
    texts = {key: text for key, text in data.items() if isinstance(text, str)}
    texts = {key: text for key, text in texts.items() if not text.startswith("data:")}  # pixels
    named = {key: name for key, text in texts.items() if is_image(Path(name := _path(text)))}
    if texts.get("image"):
        named = {"image": _path(texts["image"])}
    if len(named) != 1:
        keys = f": {', '.join(named)}" if named else f" in {', '.join(data) or 'no data'}"
        raise UserError(f"{place}: {count_of(len(named), 'image')} of a task, expected one{keys}")
    ends = tails(next(iter(named.values())))
    return [*ends, *[UPLOADED.sub("", ends[-1], count=1)] * bool(UPLOADED.match(ends[-1]))]


def _path(text: str) -> str:
    """The path within a URL or a reference to an upload or a local file."""
    if not text.startswith("/data/") and "://" not in text:
        return text
    parts = urlsplit(text)
    local = parse_qs(parts.query).get("d", []) if "local-files" in parts.path else []
    return local[0] if local else unquote(parts.path).removeprefix("/data/upload/")


def _size(results: list[Mapping[str, Any]], photo: Path) -> tuple[int, int] | None:
    """(H, W) of the image: of the file, else of the photograph; None without regions."""
    shapes = [item for item in results if _kind(item.get("value") or {})]
    for item in shapes:
        if "original_height" in item and "original_width" in item:
            size = whole(item["original_height"]), whole(item["original_width"])
            if min(size) < 1 or size[0] * size[1] > MOST_PIXELS:
                raise ValueError(f"an image of {size[1]}x{size[0]} pixels")
            return size
    return upright_size(photo) if shapes else None


def _kind(value: Mapping[str, Any]) -> str:
    """The kind of a shape by its keys, "" for none with an area."""
    if "rle" in value:
        return "brush"
    if "imageDataURL" in value:
        return "bitmask"
    if "radiusX" in value:
        return "ellipse"
    if "points" in value:
        return "polygon"
    return "rectangle" if "height" in value and "x" in value else ""


def _regions(
    results: list[Mapping[str, Any]],
    size: tuple[int, int],
    place: str,
    skipped: Counter[str],
    counts: Counter[str],
) -> list[Region]:
    """The regions of one annotation; the tags of a shape may be results of the same id."""
    found: dict[Any, Region] = {}
    for index, item in enumerate(results):
        with located(f"{place}, result {index} ({item.get('type')})"):
            value = item.get("value") or {}
            kind = _kind(value)
            if not kind or item.get("type") in ("keypointlabels", "keypoint"):
                skipped[str(item.get("type"))] += 1
                continue
            labels = value.get(f"{kind}labels") or value.get("labels") or []
            labels = [labels] if isinstance(labels, str) else labels
            key = item.get("id", f"#{index}")
            if key in found and (found[key].name or not labels):
                continue
            counts["many"] += len(labels) > 1
            name = str(labels[0]) if labels else ""
            found[key] = _region(kind, value, name, size)
    counts["unnamed"] += sum(region.ignored for region in found.values())
    return list(found.values())


def _region(kind: str, value: Mapping[str, Any], name: str, size: tuple[int, int]) -> Region:
    """A shape as a region; ValueError or KeyError for a damaged one."""
    if kind == "brush":
        if value.get("format", "rle") != "rle":
            raise ValueError(f"a brush in the format {value['format']!r}, expected 'rle'")
        pixels, corner = cropped(decode_brush(bytes(value["rle"]), size) >= 128)
        return Region(name, pixels=pixels, corner=corner, ignored=not name)
    if kind == "bitmask":
        pixels, corner = cropped(_bitmask(value["imageDataURL"], size) >= 128)
        return Region(name, pixels=pixels, corner=corner, ignored=not name)
    scale = np.array([size[1], size[0]]) / 100
    if kind == "polygon":
        outline = points(value["points"]) * scale
    else:
        (x, y), degrees = points([(value["x"], value["y"])])[0] * scale, value.get("rotation") or 0
        if kind == "ellipse":
            across, down = points([(value["radiusX"], value["radiusY"])])[0] * scale
            outline = ellipse(x, y, across, down, number(degrees))
        else:
            w, h = points([(value["width"], value["height"])])[0] * scale
            outline = turned(box(x, y, x + w, y + h), number(degrees), (x, y))
    return Region(name, [outline], ignored=not name)


def _bitmask(url: str, size: tuple[int, int]) -> np.ndarray:
    """The alpha (H, W) uint8 of a bitmask; ValueError for no PNG of that size in a data URL."""
    head, _, text = url.partition(",")
    if head != "data:image/png;base64":
        raise ValueError(f"a bitmask at {url[:40]!r}, expected data:image/png;base64,...")
    alpha = png_pixels(base64.b64decode(text, validate=True))
    if alpha.shape != size:
        raise ValueError(
            f"a bitmask of {alpha.shape[1]}x{alpha.shape[0]}, its image is {size[1]}x{size[0]}"
        )
    return alpha


def decode_brush(code: bytes, size: tuple[int, int]) -> np.ndarray:
    """The alpha (H, W) uint8 of a brush.

    The code is a stream of bits, the most significant first: 32 bits with the number of values; 5
    with the bits of a value, less 1; four times 4 with the bits of a count, less 1. Then blocks: 1
    bit, is it one value repeated? 2 bits, which of the four sizes the count has; the count less 1;
    one value, or as many as the count.

    Raises ValueError for a code that ends early, or has other than H * W * 4 values of 8 bits.
    """
    bits = np.unpackbits(np.frombuffer(code, np.uint8))
    text = (bits + ord("0")).tobytes().decode("ascii")
    count, width = int(text[:32] or "0", 2), int(text[32:37] or "0", 2) + 1
    if count != size[0] * size[1] * 4 or width != 8:
        raise ValueError(
            f"a brush of {count} values of {width} bits, expected {size[1]}x{size[0]}x4 of 8"
        )
    sizes = [int(text[at : at + 4] or "0", 2) + 1 for at in (37, 41, 45, 49)]
    values = np.zeros(count, np.uint8)
    at, done = 53, 0
    while done < count:
        first = at + 3 + sizes[int(text[at + 1 : at + 3] or "0", 2)]
        length = int(text[at + 3 : first] or "0", 2) + 1
        stored = 1 if text[at : at + 1] == "1" else length
        at = first + 8 * stored
        if at > bits.size:
            raise ValueError("its run-length code ends early")
        if done + length > count:
            raise ValueError("its run-length code is too long")
        values[done : done + length] = np.packbits(bits[first:at])
        done += length
    return values.reshape(*size, 4)[..., 3]
