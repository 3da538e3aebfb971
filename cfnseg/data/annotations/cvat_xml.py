"""CVAT's own format: "CVAT for images 1.1" and "CVAT for video 1.1" (annotations.xml).

Source: CVAT's documentation, "XML annotation format". Coordinates are continuous with (0, 0) at
the image's top left corner, so they are kept. ``rotation`` is in degrees, clockwise, about the
shape's center. A mask's ``rle`` counts pixels outside and inside in turn, row by row within its
box, outside first. A larger ``z_order`` is nearer to the viewer; of equal ones the smaller region
is drawn on top, as the format has no order for them.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np

from cfnseg.data.annotations.parsing import (
    box,
    color_of,
    count_of,
    ellipse,
    head,
    left_out,
    located,
    number,
    only_file,
    points,
    turned,
    whole,
)
from cfnseg.data.annotations.photographs import SPLITS, locate, tails
from cfnseg.data.annotations.regions import AnnotatedImage, Annotations, Region
from cfnseg.data.decode import MOST_PIXELS
from cfnseg.data.files import IMAGE_TYPES, is_image, list_images, nearby, read_text
from cfnseg.errors import UserError

SHAPES = ("polygon", "box", "ellipse", "mask")
OTHERS = ("polyline", "points", "cuboid", "skeleton", "tag")
EMPTY_LABELS = (
    "points",
    "polyline",
    "skeleton",
    "tag",
)  # types of labels whose shapes have no area


def is_ours(source: Path) -> bool:
    """Whether a file, or the folder's ``annotations.xml``, starts as CVAT's XML does."""
    start = head(source / "annotations.xml" if source.is_dir() else source)
    return start.lstrip("ï»¿ÿþ \r\n\t").startswith("<") and "<annotations>" in start


def read(source: Path, images: Path | None = None) -> Annotations:
    """Read an export.

    Args:
        source: ``annotations.xml``, or its folder.
        images: the folder of the photographs; None: ``images/`` beside the file, or its folder.

    Raises:
        UserError: no XML, a document type definition, a damaged shape, or a video's frames without
            image files.
    """
    path = only_file(source, "*.xml", is_ours)
    root = _root(path)
    folders = [images] if images else [path.parent / "images", path.parent]
    labels = [x for x in root.iterfind("meta//labels/label") if x.find("parent") is None]
    names, colors = [], {}
    for label in labels:
        name = label.findtext("name", "")
        if name and name not in names and label.findtext("type") not in EMPTY_LABELS:
            names.append(name)
            if color := color_of(label.findtext("color")):
                colors[name] = color
    skipped: Counter[str] = Counter()
    notes: list[str] = []
    if root.find("image") is None and root.find("track") is not None:
        found = _frames(root, path, folders, skipped, notes)
    else:
        found = _images(root, path, folders, bool(images), skipped)
    names += sorted({r.name for image in found for r in image.regions} - set(names))
    return Annotations(names, found, colors=colors, notes=[*left_out(skipped), *notes])


def _root(path: Path) -> ElementTree.Element:
    """The root element of a file without a document type definition: entities may expand."""
    text = read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise UserError(f"{path}: a document type definition, which CVAT writes in no file")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: not XML, or cut off ({error})") from None
    except ValueError as error:
        raise UserError(f"{path}: not XML ({error})") from None
    if root.tag != "annotations":
        raise UserError(f"{path}: not CVAT's XML: <{root.tag}>, expected <annotations>")
    return root


def _images(
    root: ElementTree.Element, path: Path, folders: list[Path], deep: bool, skipped: Counter[str]
) -> list[AnnotatedImage]:
    """The images of "CVAT for images"."""
    entries = []
    for index, element in enumerate(root.iterfind("image")):
        name = element.get("name", "")
        place = f"{path}, image {name or index}"
        with located(place):
            size = whole(element.attrib["height"]), whole(element.attrib["width"])
            if not name:
                raise ValueError("no name")
        found = _regions(((e, e.get("label", "")) for e in element), place, skipped)
        subset = element.get("subset", "")
        split = "" if subset.lower() == "default" else SPLITS.get(subset.lower(), subset)
        # a project's export has a folder for each subset
        within = [f"{subset}/{name}"] * bool(subset)
        # the frames of a video are named frame_000000, their files frame_000000.PNG
        typed = [name + s for t in IMAGE_TYPES * (not is_image(Path(name))) for s in (t, t.upper())]
        entries.append(([name, *typed, *within, *tails(name)[1:]], found, size, split))
    paths = locate([names for names, *_ in entries], folders, deep)
    return [
        AnnotatedImage(photo, found, (path,), size, True, split)
        for photo, (_, found, size, split) in zip(paths, entries)
    ]


def _frames(
    root: ElementTree.Element,
    path: Path,
    folders: list[Path],
    skipped: Counter[str],
    notes: list[str],
) -> list[AnnotatedImage]:
    """The frames of "CVAT for video" that have shapes."""
    frames: dict[int, list[tuple[ElementTree.Element, str]]] = defaultdict(list)
    for track in root.iterfind("track"):
        for element in track:
            with located(f"{path}, track {track.get('id')}, <{element.tag}>"):
                if element.get("outside") != "1":
                    frames[whole(element.attrib["frame"])].append((element, track.get("label", "")))
    size = None
    if (original := root.find("meta//original_size")) is not None:
        with located(f"{path}, original_size"):
            size = whole(original.findtext("height")), whole(original.findtext("width"))
    photos = _photographs(root, path, folders)
    if missing := sorted(frames.keys() - photos.keys()):
        raise UserError(
            f"{path}: {count_of(len(missing), 'frame')} of the video without an image file, first "
            f"frame {missing[0]}; export with images, or write the frames as frame_000000.png, ..."
        )
    if bare := len(photos.keys() - frames.keys()):
        notes.append(f"{count_of(bare, 'frame')} without a shape left out")
    return [
        AnnotatedImage(
            photos[frame],
            _regions(frames[frame], f"{path}, frame {frame}", skipped),
            (path,),
            size,
            True,
        )
        for frame in sorted(frames)
    ]


def _photographs(root: ElementTree.Element, path: Path, folders: list[Path]) -> dict[int, Path]:
    """The image files of a video's frames by index: by name, or by order if none is missing."""
    for folder in (f for f in folders if f.is_dir()):
        files = list_images(folder)[0]
        named = {int(m[1]): p for p in files if (m := re.fullmatch(r"frame_(\d+)", p.stem))}
        if named:
            return named
        if files and root.findtext("meta//size", "").strip() == str(len(files)):
            return dict(enumerate(files))
    folder = folders[0]
    raise UserError(
        f"{path}: a video's annotation, and no image files of its frames in {folder} "
        f"({nearby(folder)}); export with images, or write the frames as frame_000000.png, ..."
    )


def _regions(
    elements: Iterable[tuple[ElementTree.Element, str]], place: str, skipped: Counter[str]
) -> list[Region]:
    """The regions of an image in drawing order."""
    found = []
    for index, (element, label) in enumerate(elements):
        if element.tag in SHAPES:
            with located(f"{place}, shape {index} <{element.tag}>"):
                if not label:
                    raise ValueError("no label")
                depth = whole(element.get("z_order", "0"))
                region = _region(element.tag, element.attrib, label)
                found.append((depth, -_area(region), region))
        else:
            skipped[element.tag] += 1
    return [region for *_, region in sorted(found, key=lambda item: item[:2])]


def _region(kind: str, given: Mapping[str, str], label: str) -> Region:
    """A shape as a region; ValueError or KeyError for a damaged one."""
    if kind == "polygon":
        return Region(label, [points([p.split(",") for p in given["points"].split(";")])])
    if kind == "mask":
        pixels = _unpacked(given["rle"], whole(given["height"]), whole(given["width"]))
        return Region(label, pixels=pixels, corner=(whole(given["left"]), whole(given["top"])))
    degrees = number(given.get("rotation", "0"))
    if kind == "ellipse":
        x, y, across, down = (number(given[key]) for key in ("cx", "cy", "rx", "ry"))
        return Region(label, [ellipse(x, y, across, down, degrees)])
    left, top, right, bottom = (number(given[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
    middle = (left + right) / 2, (top + bottom) / 2
    return Region(label, [turned(box(left, top, right, bottom), degrees, middle)])


def _unpacked(code: str, height: int, width: int) -> np.ndarray:
    """The pixels (h, w) bool of run lengths "outside, inside, outside, ..."; ValueError."""
    if height < 0 or width < 0 or height * width > MOST_PIXELS:
        raise ValueError(f"a mask of {width}x{height} pixels")
    counts = np.array([whole(part) for part in code.split(",")], np.int64)
    if counts.min() < 0 or counts.sum() != height * width:
        raise ValueError(f"run lengths for {counts.sum()} of {width}x{height} pixels")
    return np.repeat(np.arange(counts.size) % 2 == 1, counts).reshape(height, width)


def _area(region: Region) -> float:
    """In pixels."""
    if region.pixels is not None:
        return float(region.pixels.sum())
    return float(sum(cv2.contourArea(p.astype(np.float32)) for p in region.polygons))
