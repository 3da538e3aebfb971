"""A copy of a data set in which everything is mended that can be: masks of plain ids, named and sized as their images are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cfnseg.data.labels import LabelMap
from cfnseg.doctor.classes import written
from cfnseg.doctor.examine import ImageFacts, MaskFacts, Record, open_mask, pack_pixels
from cfnseg.doctor.forms import PLAIN, Form
from cfnseg.doctor.masks import VOID_LINES, two_meanings, unexplained
from cfnseg.doctor.scan import HELD, Scan
from cfnseg.doctor.sizes import cause, fitted
from cfnseg.errors import UserError
from cfnseg.storage import write_atomic


def write_mended(found: Scan, records: list[Record], forms: list[Form | None], out: Path) -> dict[str, int]:
    """Write a folder data set whose images, and masks that are right already, are links to the old ones.

    Left out are pairs with a file that is missing, unreadable or not understood, second images for one mask, and training
    images with the pixels of a validation image. Unknown ids become ignored ones. Nothing of the old data set is changed.

    Args:
        found, records, forms: what was examined.
        out: a new or empty folder.

    Returns:
        How many pairs were "linked", "written" anew and "left_out".

    Raises:
        UserError: ``out`` has files in it or cannot be written, or there is nothing to be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} has files in it; give --mend a new or empty folder", code=2)
    labels = found.labels
    known = {*(label.id for label in labels.labels), *labels.ignore} if labels else set()
    unknown: set[int] = set()
    done = {"linked": 0, "written": 0, "left_out": 0}
    validated = {r.image.digest for r in records if found.roles[r.pair.split] == "val" and isinstance(r.image, ImageFacts)}
    taken: set[tuple[str, str]] = set()
    open_masks = set(two_meanings(found, records))
    for i, (record, form) in enumerate(zip(records, forms)):
        split = record.pair.split.removesuffix(f", {HELD}")
        copied = found.roles[record.pair.split] != "val" and isinstance(record.image, ImageFacts) and record.image.digest in validated
        if labels is None or copied or (split, record.pair.name) in taken or not _usable(record, form, known, i in open_masks):
            done["left_out"] += 1
            continue
        taken.add((split, record.pair.name))
        _link(record.pair.image, out / "images" / split / f"{record.pair.name}{record.pair.image.suffix}")
        path, why = out / "labels" / split / f"{record.pair.name}.png", cause(record.image, record.mask)
        if form in (None, PLAIN):
            unknown |= set(record.mask.values.tolist()) - known
        if form in (None, PLAIN) and why is None and record.pair.mask.suffix.lower() == ".png":
            _link(record.pair.mask, path)
            done["linked"] += 1
        else:
            ids = raw_ids(record.pair.mask, form, labels)
            _write(path, ids if why is None else fitted(ids, record.image, why), labels)
            done["written"] += 1
    if not taken:
        raise UserError("there is no pair that a copy could have")
    text = written(labels, found.void, more_void=sorted(unknown))
    write_atomic(out / "classes.txt", lambda beside: beside.write_text(text, encoding="utf-8"))
    return done


def raw_ids(path: Path, form: Form | None, labels: LabelMap) -> np.ndarray:
    """A mask file's raw ids (H, W) uint8 by the form it is in; what the form does not know is ignored."""
    pixels = open_mask(path)[0]
    if form in (None, PLAIN):
        return pixels.astype(np.uint8)
    values, inverse = np.unique(pack_pixels(pixels), return_inverse=True)
    ids = form.ids(values)
    return np.where(ids < 0, labels.void, ids).astype(np.uint8)[inverse.reshape(pixels.shape[:2])]


def _usable(record: Record, form: Form | None, known: set[int], undecided: bool) -> bool:
    image, mask = record.image, record.mask
    if not isinstance(image, ImageFacts) or not isinstance(mask, MaskFacts) or record.pair.image is None or record.pair.mask is None:
        return False
    if form is None and (unexplained(mask) != "unknown-id" or len(set(mask.values.tolist()) - known) > VOID_LINES):
        return False
    if (mask.lossy and not mask.colored) or undecided or (form not in (None, PLAIN) and not form.table):
        return False
    why = cause(image, mask)
    return why is None or why.mends


def _link(source: Path, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(source.resolve())
    except OSError as error:
        raise UserError(f"{path} could not be made a link to {source} ({error.strerror or error})") from None


def _write(path: Path, ids: np.ndarray, labels: LabelMap) -> None:
    picture = Image.fromarray(ids, mode="P")
    picture.putpalette(labels.palette().tobytes())
    write_atomic(path, lambda beside: picture.save(beside, format="PNG"))
