"""COCO's annotations as masks: pycocotools draws polygons and run lengths as 8-bit palette PNGs.

Three label spaces, each with published results:

* ``coco``: raw ids are COCO's category ids, 1 to 90 (80 things), 0 = background.
* ``coco_voc``: VOC's twenty categories under VOC's ids 0 to 20; all else is background. The mapping
  is from torchvision's references, for comparison with its pretrained models. They ignore overlaps;
  here overlaps are drawn.
* ``coco_stuff``: things and the 91 stuffs, 171 classes; raw ids are category ids 1 to 182. Pixels
  without a class are ignored.

Overlaps are drawn in this order: stuff, crowds, objects from large to small, equal ones in file
order. Crowds are ignored (255), because their outline contains objects and gaps.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
from pathlib import Path

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO

from cfnseg.data.files import existing, note
from cfnseg.data.formats import voc
from cfnseg.data.labels import IGNORE, Label, LabelMap
from cfnseg.data.loader import parallel
from cfnseg.errors import UserError, first_line
from cfnseg.progress import progress
from cfnseg.storage import write_atomic

# COCO's names of VOC's classes 1 to 20
AS_VOC = [
    "airplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorcycle",
    "person",
    "potted plant",
    "sheep",
    "couch",
    "train",
    "tv",
]
OTHER = 183  # the stuff annotations' category for all things


def draw(
    annotations: list[dict], size: tuple[int, int], ids: dict[int, int], ground: int
) -> np.ndarray:
    """One image's annotations as a mask.

    Args:
        annotations: COCO's, things and stuff, in any order.
        size: (H, W).
        ids: category id -> raw id; other categories are left out.
        ground: the raw id of pixels without an annotation.

    Returns:
        (H, W) uint8 raw ids, 255 for crowds, without the annotations that `why_undrawn` names.
    """
    layers = []
    for a in annotations:
        if a["category_id"] in ids and not why_undrawn(a, *size):
            code = _encoded(a["segmentation"], *size)
            thing = a["category_id"] < 92
            crowd = bool(a.get("iscrowd")) and thing
            value = IGNORE if crowd else ids[a["category_id"]]
            layers.append(((thing, not crowd, -int(rle.area(code))), value, code))
    mask = np.full(size, ground, np.uint8)
    for _, value, code in sorted(layers, key=lambda layer: layer[0]):
        mask[rle.decode(code) == 1] = value
    return mask


def why_undrawn(annotation: dict, height: int, width: int) -> str:
    """Why an annotation cannot be drawn on an image of this size; "" if it can."""
    shape = annotation.get("segmentation")
    if not shape:
        return "a box alone"
    if isinstance(shape, list):
        return "" if any(_is_polygon(part) for part in shape) else "no polygon of three points"
    if not isinstance(shape, dict) or "counts" not in shape or "size" not in shape:
        return ""  # not COCO's form: drawing it raises
    if list(shape["size"]) != [height, width]:
        return "run lengths of another size than the image"
    counts = shape["counts"]
    if isinstance(counts, list):
        legal = all(isinstance(n, int) and n >= 0 for n in counts)
        return (
            ""
            if legal and sum(counts) == height * width
            else "run lengths that do not fill the image"
        )
    return ""


def _is_polygon(part: object) -> bool:
    return (
        isinstance(part, list)
        and len(part) >= 6
        and len(part) % 2 == 0
        and all(isinstance(x, int | float) and math.isfinite(x) for x in part)
    )


def _encoded(segmentation: list | dict, height: int, width: int) -> dict:
    """Polygons, run lengths or compressed run lengths as compressed run lengths."""
    if isinstance(segmentation, list):
        polygons = [part for part in segmentation if _is_polygon(part)]
        return rle.merge(rle.frPyObjects(polygons, height, width))
    compressed = not isinstance(segmentation["counts"], list)
    return segmentation if compressed else rle.frPyObjects(segmentation, height, width)


def label_map(name: str, categories: list[dict]) -> tuple[LabelMap, dict[int, int], int]:
    """The classes of a label space, category id -> raw id, and the ground's raw id.

    Args:
        name: coco, coco_voc or coco_stuff.
        categories: COCO's, with the classes' names.
    """
    if name == "coco_voc":
        own = {c["name"]: c["id"] for c in categories}
        return voc.LABELS, {own[n]: i for i, n in enumerate(AS_VOC, 1)}, 0
    labels = [
        Label(c["id"], c["name"], voc.color(c["id"]))
        for c in sorted(categories, key=lambda c: c["id"])
        if c["id"] != OTHER
    ]
    background = [Label(0, "background", voc.color(0))] if name == "coco" else []
    return LabelMap(background + labels), {x.id: x.id for x in labels}, 0 if background else IGNORE


def convert(root: Path, split: str, name: str) -> None:
    """Draw the masks of a split into ``masks/<name>/<split>2017``, one process per core.

    Existing masks are left unchanged.

    Args:
        root: has ``annotations/instances_<split>2017.json``; coco_stuff needs ``stuff_...`` too.
        split: train or val.
        name: coco, coco_voc or coco_stuff.

    Raises:
        UserError: annotations that are missing or cannot be used.
    """
    out = root / "masks" / name
    kinds = ["instances", "stuff"] if name == "coco_stuff" else ["instances"]
    remedy = f"Get it with: cfnseg prepare {name} --root {root}"
    files = [
        existing(root / "annotations" / f"{kind}_{split}2017.json", f"COCO's {kind}", remedy)
        for kind in kinds
    ]
    source = " or ".join(map(str, files))
    sets = [_read(path) for path in files]
    try:
        labels, ids, ground = label_map(name, [c for s in sets for c in s.dataset["categories"]])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{source}: these are not COCO's categories ({first_line(error)})"
        ) from None
    text = json.dumps(labels.to_dict())
    write_atomic(out / "labels.json", lambda temporary: temporary.write_text(text))
    jobs = []
    for index, image in sets[0].imgs.items():
        target = out / f"{split}2017" / f"{Path(image['file_name']).stem}.png"
        if not target.exists():
            annotations = [a for s in sets for a in s.imgToAnns.get(index, [])]
            jobs.append((target, annotations, (image["height"], image["width"])))
    if not jobs:
        return
    draw_file = functools.partial(_draw_file, source, labels, ids, ground)
    drawn = parallel(draw_file, jobs, os.cpu_count() or 1)
    left_out: dict[str, list[int]] = {}
    for undrawn in progress(drawn, len(jobs), f"draw {name} {split}"):
        for why, found in undrawn.items():
            left_out.setdefault(why, []).extend(found)
    if left_out:
        reasons = ", ".join(
            f"{len(found):,} with {why} (first: annotation {min(found)})"
            for why, found in sorted(left_out.items())
        )
        count = sum(map(len, left_out.values()))
        note(
            f"{' and '.join(map(str, files))}: {count:,} "
            f"{'objects are' if count > 1 else 'object is'} left out: {reasons}"
        )


def _draw_file(
    source: str,
    labels: LabelMap,
    ids: dict[int, int],
    ground: int,
    job: tuple[Path, list[dict], tuple[int, int]],
) -> dict[str, list[int]]:
    """Draw and write one image's mask. Returns the ids of annotations left out, by reason."""
    target, annotations, size = job
    undrawn: dict[str, list[int]] = {}
    try:
        for a in annotations:
            if a["category_id"] in ids and (why := why_undrawn(a, *size)):
                undrawn.setdefault(why, []).append(a["id"])
        mask = labels.encode(draw(annotations, size, ids, ground))
        write_atomic(target, lambda temporary: labels.write(temporary, mask))
    except Exception as error:  # pycocotools raises Exception itself
        raise UserError(
            f"{source}: the annotations of {target.stem} cannot be drawn "
            f"({type(error).__name__}: {first_line(error)})"
        ) from None
    return undrawn


def _read(path: Path) -> COCO:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            return COCO(str(path))
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f"{path}: no COCO annotations ({type(error).__name__}: {first_line(error)})"
        ) from None
