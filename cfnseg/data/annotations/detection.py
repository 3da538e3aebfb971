"""The formats by name, and which of them a folder or file is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from cfnseg.data.annotations.regions import Annotations
from cfnseg.data.files import is_hidden, is_image
from cfnseg.errors import unknown

FORMATS = {  # the module whose `read` reads it
    "coco": "coco_json",
    "labelme": "labelme_json",
    "cvat": "cvat_xml",
    "labelstudio": "label_studio",
    "via": "via_json",
    "yolo": "yolo_txt",
    "supervisely": "supervisely_json",
    "masks": "finished_masks",
}
PEEK = 1 << 16  # bytes looked at from a file's start and from its end
LOOKED_AT = 2000  # files and folders of a folder
FEW = 5  # JSON, XML and text files of a folder that are opened


def reader(name: str) -> Callable[..., Annotations]:
    """The function ``read(source, images=None)`` of a format; UserError (usage) without one."""
    if name not in FORMATS:
        raise unknown("format", name, [*FORMATS, "auto"])
    return import_module(f"cfnseg.data.annotations.{FORMATS[name]}").read


def detect(source: Path) -> str | None:
    """The format of a file or folder, one of `FORMATS`; None if it looks like none.

    A few files are looked at, each at its start and its end, so that size costs nothing.
    """
    if source.is_file():
        return _of_file(source)
    if not source.is_dir():
        return None
    seen = itertools.islice(source.rglob("*"), LOOKED_AT)
    files = sorted(p for p in seen if not is_hidden(p.name) and p.is_file())
    names = {p.name.lower() for p in files}
    if names & {"labelmap.txt", "_classes.csv"}:
        return "masks"
    for suffix in (".json", ".xml", ".yaml", ".txt"):
        own = [p for p in files if p.suffix.lower() == suffix]
        for path in own[:FEW]:
            if kind := _of_file(path):
                return kind
    folders = {part.lower() for p in files for part in p.relative_to(source).parts[:-1]}
    suffixes = ("_mask.png", "_labels.png", "_label.png", "_l.png", "_gt.png")
    masks = {"masks", "mask", "labels", "label", "annotations", "segmentationclass", "gt"}
    if any(is_image(p) for p in files) and (
        folders & masks or any(name.endswith(suffixes) for name in names)
    ):
        return "masks"
    return None


def _of_file(path: Path) -> str | None:
    """The format of a JSON, XML, YAML or text file."""
    try:
        with path.open("rb") as file:
            data = file.read(PEEK)
            size = file.seek(0, 2)
            file.seek(max(PEEK, size - PEEK))
            text = (data + file.read()).decode("utf-8", "replace").replace("\0", "")
    except OSError:
        return None
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _of_keys(set(re.findall(r'"(\w+)"\s*:', text)), text.lstrip("\ufeff \r\n\t")[:1])
    if suffix == ".xml":
        return (
            "cvat" if "<annotations" in text and re.search(r"<(image|track|meta)\b", text) else None
        )
    if suffix in (".yaml", ".yml"):
        return "yolo" if re.search(r"^names\s*:", text, re.M) else None
    if suffix == ".txt":  # a class and 3 or more points
        number = r"-?\d*\.?\d+(?:e-?\d+)?"
        line = text.split("\n", 1)[0].strip()
        return "yolo" if re.fullmatch(rf"\d+(?: {number} {number}){{3,}}", line) else None
    return None


def _of_keys(keys: set[str], start: str) -> str | None:
    """The format of JSON with these keys, some of which may be missing, by its first character."""
    if {"shapes", "imagePath"} <= keys:
        return "labelme"
    if keys & {"_via_img_metadata", "_via_settings", "shape_attributes"}:
        return "via"
    studio = {"result", "completions", "brushlabels", "polygonlabels", "original_width"}
    if start == "[" and keys & studio:
        return "labelstudio"
    if keys & {"images", "file_name"} and keys & {"category_id", "categories", "supercategory"}:
        return "coco"
    if "classTitle" in keys or {"objects", "size"} <= keys or {"classes", "tags"} <= keys:
        return "supervisely"
    return None
