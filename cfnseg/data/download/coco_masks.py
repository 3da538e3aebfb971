"""COCO's annotations as masks: polygons and run lengths drawn by pycocotools, one 8-bit palette PNG an image.

Three label spaces, each with published results:

* ``coco``: raw ids are COCO's category ids, 1 to 90 (80 things), 0 = background.
* ``coco_voc``: the twenty categories that VOC has, under VOC's ids 0 to 20; all else is background. The mapping is that of
  torchvision's references, whose pretrained models it serves to compare with; they ignore overlaps, which are drawn here.
* ``coco_stuff``: things and the 91 stuffs, 171 classes, raw ids are category ids 1 to 182; what has neither is ignored.

One rule for overlaps: stuff lies lowest; on it crowds, which are ignored (255), as their outline holds single objects and
gaps alike; on them the objects, the larger first, so that the smaller lies on top; of equal ones the later in the file.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import multiprocessing
import signal
from pathlib import Path

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from rich.console import Console
from rich.progress import track

from cfnseg.data.files import existing, note
from cfnseg.data.formats import voc
from cfnseg.data.labels import IGNORE, Label, LabelMap
from cfnseg.errors import UserError, first_line
from cfnseg.storage import write_atomic

# COCO's names of VOC's classes 1 to 20
AS_VOC = ["airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog", "horse",
          "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv"]
OTHER = 183  # the stuff annotations' name for all things


def draw(annotations: list[dict], size: tuple[int, int], ids: dict[int, int], ground: int) -> np.ndarray:
    """One image's annotations as a mask.

    Args:
        annotations: in COCO's form, things and stuff, in any order.
        size: height and width.
        ids: category id -> raw id; other categories are left out.
        ground: the raw id where nothing lies.

    Returns:
        (H, W) uint8 raw ids, 255 where a crowd lies on top. What `why_undrawn` names is left out.
    """
    layers = []
    for a in annotations:
        if a["category_id"] in ids and not why_undrawn(a, *size):
            code = _encoded(a["segmentation"], *size)
            thing = a["category_id"] < 92
            crowd = bool(a.get("iscrowd")) and thing
            layers.append(((thing, not crowd, -int(rle.area(code))), IGNORE if crowd else ids[a["category_id"]], code))
    mask = np.full(size, ground, np.uint8)
    for _, value, code in sorted(layers, key=lambda layer: layer[0]):
        mask[rle.decode(code) == 1] = value
    return mask


def why_undrawn(annotation: dict, height: int, width: int) -> str:
    """Why an annotation has no area that can be drawn on an image of this size; "" if it has one."""
    shape = annotation.get("segmentation")
    if not shape:
        return "a box alone"
    if isinstance(shape, list):
        return "" if any(_is_polygon(part) for part in shape) else "no polygon of three points"
    if not isinstance(shape, dict) or "counts" not in shape or "size" not in shape:
        return ""  # no COCO annotation: drawing it is an error
    if list(shape["size"]) != [height, width]:
        return "run lengths of another size than the image"
    counts = shape["counts"]
    if isinstance(counts, list) and (not all(isinstance(n, int) and n >= 0 for n in counts) or sum(counts) != height * width):
        return "run lengths that do not fill the image"
    return ""


def _is_polygon(part: object) -> bool:
    return (isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0
            and all(isinstance(x, int | float) and math.isfinite(x) for x in part))


def _encoded(segmentation: list | dict, height: int, width: int) -> dict:
    """Polygons, run lengths or compressed run lengths as the last of them."""
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects([part for part in segmentation if _is_polygon(part)], height, width))
    return rle.frPyObjects(segmentation, height, width) if isinstance(segmentation["counts"], list) else segmentation


def label_map(name: str, categories: list[dict]) -> tuple[LabelMap, dict[int, int], int]:
    """The classes of ``coco``, ``coco_voc`` or ``coco_stuff``, category id -> raw id, and the raw id where nothing lies.

    Args:
        categories: those of COCO's files; the classes' names come from there.
    """
    if name == "coco_voc":
        own = {c["name"]: c["id"] for c in categories}
        return voc.LABELS, {own[n]: i for i, n in enumerate(AS_VOC, 1)}, 0
    labels = [Label(c["id"], c["name"], voc.color(c["id"])) for c in sorted(categories, key=lambda c: c["id"]) if c["id"] != OTHER]
    background = [Label(0, "background", voc.color(0))] if name == "coco" else []
    return LabelMap(background + labels), {x.id: x.id for x in labels}, 0 if background else IGNORE


def convert(root: Path, split: str, name: str) -> None:
    """Draw the masks of a split into ``masks/<name>/<split>2017``, in a process per core; those that are there are left alone.

    Args:
        root: has ``annotations/instances_<split>2017.json``, and for coco_stuff ``stuff_<split>2017.json``.

    Raises:
        UserError: annotations that are missing or cannot be used.
    """
    out = root / "masks" / name
    kinds = ["instances", "stuff"] if name == "coco_stuff" else ["instances"]
    files = [existing(root / "annotations" / f"{kind}_{split}2017.json", f"COCO's {kind}",
                      f"Get it with: python tools/prepare_data.py {name} --root {root}") for kind in kinds]
    sets = [_read(path) for path in files]
    try:
        labels, ids, ground = label_map(name, [c for s in sets for c in s.dataset["categories"]])
    except (KeyError, ValueError) as error:
        raise UserError(f"{' or '.join(map(str, files))}: these are not COCO's categories ({first_line(error)})") from None
    write_atomic(out / "labels.json", lambda beside: beside.write_text(json.dumps(labels.to_dict())))
    targets = {index: out / f"{split}2017" / f"{Path(image['file_name']).stem}.png" for index, image in sets[0].imgs.items()}
    targets = {index: target for index, target in targets.items() if not target.exists()}
    if not targets:
        return
    jobs = ((target, [a for s in sets for a in s.imgToAnns.get(index, [])],
             (sets[0].imgs[index]["height"], sets[0].imgs[index]["width"]), ids, ground, labels) for index, target in targets.items())
    left_out: dict[str, list[int]] = {}
    with multiprocessing.Pool(initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:  # Ctrl-C is the parent's
        drawn = pool.imap_unordered(_draw_file, jobs, chunksize=16)
        for fault, undrawn in track(drawn, f"draw {name} {split}", total=len(targets), console=Console(stderr=True)):
            if fault:
                raise UserError(f"{' or '.join(map(str, files))}: {fault}")
            for why, found in undrawn.items():
                left_out.setdefault(why, []).extend(found)
    if left_out:
        reasons = ", ".join(f"{len(found):,} with {why} (first: annotation {min(found)})" for why, found in sorted(left_out.items()))
        count = sum(map(len, left_out.values()))
        note(f"{' and '.join(map(str, files))}: {count:,} {'objects are' if count > 1 else 'object is'} left out: {reasons}")


def _draw_file(job: tuple) -> tuple[str, dict[str, list[int]]]:
    """Draw and write one image's mask; what went wrong, "" if nothing did, and the annotations left out by the reason."""
    target, annotations, size, ids, ground, labels = job
    undrawn: dict[str, list[int]] = {}
    try:
        for a in annotations:
            if a["category_id"] in ids and (why := why_undrawn(a, *size)):
                undrawn.setdefault(why, []).append(a["id"])
        mask = labels.encode(draw(annotations, size, ids, ground))
        write_atomic(target, lambda beside: labels.write(beside, mask))
    except Exception as error:  # pycocotools raises Exception itself
        return f"the annotations of {target.stem} cannot be drawn ({type(error).__name__}: {first_line(error)})", undrawn
    return "", undrawn


def _read(path: Path) -> COCO:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells of its progress
            return COCO(str(path))
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(f"{path}: no COCO annotations ({type(error).__name__}: {first_line(error)})") from None
