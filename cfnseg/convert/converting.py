"""An export becomes a folder data set: whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
import shlex
import shutil
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.convert.convert_page import convert_page
from cfnseg.data.annotations.class_lines import Classes
from cfnseg.data.annotations.detection import detect
from cfnseg.data.annotations.exported import (
    SHARE,
    Placed,
    demand_export,
    draw_mask,
    photograph,
    read_export,
)
from cfnseg.data.files import read_image
from cfnseg.data.folds import group_mark
from cfnseg.data.labels import IGNORE
from cfnseg.data.loader import parallel
from cfnseg.drawing import shrink
from cfnseg.errors import UserError, demand, first_line
from cfnseg.progress import progress
from cfnseg.report.text import plural

PICTURES = 24  # images on the page
SIDE = 480  # their longest side, the most


@dataclass(frozen=True)
class Done:
    """What came of an image.

    Attributes:
        regions: by id.
        pixels: by id, (256,) int64.
        picture: image (h, w, 3) and train ids (h, w) of the page, or None.
        turned: EXIF turned its mask.
    """

    regions: Counter[int]
    pixels: np.ndarray
    picture: tuple[np.ndarray, np.ndarray] | None
    turned: bool


def convert_export(
    kind: str,
    source: Path,
    out: Path,
    val: float = SHARE,
    group_by: str = "",
    classes: Path | None = None,
    images: Path | None = None,
    link: bool = False,
    workers: int = 0,
) -> None:
    """Write images/, labels/, classes.txt and convert.html, and print what they have.

    Args:
        kind: a format's name, or auto.
        source: the export.
        out: a new or empty folder.
        val: share of the images that validate; see `split_images`.
        group_by: see `cfnseg.data.folds.group_of`.
        classes: see `chosen_classes`; for masks without a table of values, their table too.
        images: the photographs' folder; None = as the format says.
        link: hard links in place of copies of the photographs.
        workers: processes that draw (0 = this one).

    Raises:
        UserError: of the export or the options; nothing is written then.
    """
    demand(0 <= val < 1, "--val", val, "a share from 0 up to, but not including, 1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty; give a new or empty folder", code=2)
    if images and not images.is_dir():
        raise UserError(f"--images {images} is no folder", code=2)
    demand_export(source)
    if kind == "auto":
        kind = detect(source) or ""
        if not kind:
            raise UserError(f"{source} looks like no known export; name its format", code=2)
        print(f"format: {kind}")
    export = read_export(kind, source, val, group_by, classes, images)
    chosen, notes = export.classes, list(export.notes)
    work = export.images
    places = np.linspace(0, len(work) - 1, min(PICTURES, len(work)))
    shown = set(places.astype(int).tolist())
    # a sibling, so that the rename stays on one disk
    temporary = out.parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
    try:
        temporary.mkdir(parents=True)
        function = functools.partial(_convert, temporary, chosen, link, work, shown)
        with contextlib.ExitStack() as stack:
            results: Any = parallel(function, range(len(work)), min(workers, len(work)))
            # before the folder is removed, or a process would make it again
            stack.callback(results.close)
            done = list(progress(results, len(work), "convert"))
        (temporary / "classes.txt").write_text(chosen.text(), encoding="utf-8")
        rows = _rows(done, chosen)
        if empty := [row["name"] for row in rows if not row["pixels"]]:
            notes.append(f"no pixel of: {', '.join(empty)}")
        if turned := sum(d.turned for d in done):
            notes.append(
                f"{turned:,} annotated as stored; their masks were turned by EXIF, as images are"
            )
        splits = Counter(w.split for w in work)
        mark = group_mark([w.name for w in work])
        if export.divided and val and mark and not group_by:
            notes.append(
                f"images begin alike up to {mark!r}; if they are frames of videos, --group-by "
                f"{mark} keeps each video in one split"
            )
        notes += [f"no image validates: {out} has no split val"] * ("val" not in splits)
        page = convert_page(kind, str(source), splits, rows, notes, _pictures(work, done), chosen)
        (temporary / "convert.html").write_text(page, encoding="utf-8")
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except OSError as error:
        raise UserError(f"{out} could not be written ({first_line(error)})") from None
    finally:
        _remove(temporary)
    _tell(out, splits, rows, notes)


def _remove(folder: Path) -> None:
    """Remove a folder, if it is there, into which processes that are being stopped may write."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _convert(
    out: Path, classes: Classes, link: bool, images: list[Placed], shown: set[int], index: int
) -> Done:
    """Write the photograph and the mask of one image; keep a picture of it if it is shown."""
    work = images[index]
    image = replace(work.image, regions=list(work.image.regions))
    on_disk = image.path.is_file()
    data = photograph(image)
    mask, turned = draw_mask(image, data, classes)
    train = classes.labels.encode(mask, image.path)
    copy = out / "images" / work.split / work.name
    label = (out / "labels" / work.split / work.name).with_suffix(".png")
    try:
        if not out.is_dir():  # stopped, and removed
            raise UserError(f"{out} is gone")
        for path in (copy, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        if link and on_disk:
            os.link(image.path.resolve(), copy)
        else:
            copy.write_bytes(data)
        classes.labels.write(label, train)
    except OSError as error:
        advice = "; leave --link out" if link and error.errno in (errno.EXDEV, errno.EPERM) else ""
        raise UserError(f"{image.path} could not be written ({error.strerror}){advice}") from None
    picture = (read_image(copy), train) if index in shown else None
    return Done(
        Counter(
            IGNORE if r.ignored else classes.ids[r.name]
            for r in image.regions
            if r.ignored or r.name in classes.ids
        ),
        np.bincount(mask.ravel(), minlength=256),
        (shrink(picture[0], SIDE), shrink(picture[1], SIDE, ids=True)) if picture else None,
        turned,
    )


def _rows(done: list[Done], classes: Classes) -> list[dict]:
    """Of each class, and of ignored pixels: id, name, colour, images, regions and pixels."""
    regions = sum((d.regions for d in done), Counter())
    pixels = np.array([d.pixels for d in done])
    rows = []
    for label in classes.labels.labels:
        own = pixels[:, label.id]
        rows.append(
            {
                "id": label.id,
                "name": label.name,
                "color": label.color,
                "images": int((own > 0).sum()),
                "regions": regions[label.id],
                "pixels": int(own.sum()),
                "share": int(own.sum()) / int(pixels.sum()),
            }
        )
    return rows


def _pictures(
    work: list[Placed], done: list[Done]
) -> list[tuple[str, str, np.ndarray, np.ndarray]]:
    """Split, name, image and train ids of each that the page shows."""
    return [(w.split, w.name, *d.picture) for w, d in zip(work, done) if d.picture]


def _tell(out: Path, splits: Counter[str], rows: list[dict], notes: list[str]) -> None:
    """Print counts, notes and the next commands."""
    width = max(len(row["name"]) for row in rows)
    print(f"{'class':{width + 4}}  images  regions  pixels")
    for row in rows:
        print(
            f"{row['id']:3d} {row['name']:{width}}  {row['images']:6,d}  {row['regions']:7,d}  "
            f"{100 * row['share']:5.1f}%"
        )
    ignored = 1 - sum(row["share"] for row in rows)
    if ignored > 1e-9:  # more than rounding
        print(f"    {'ignored':{width}}  {'':6}  {'':7}  {100 * ignored:5.1f}%")
    print(", ".join(f"{split} {plural(n, 'image')}" for split, n in sorted(splits.items())))
    for text in notes:
        print(f"note: {text}")
    data = f"shapes_cfn --data.name folder --data.root {shlex.quote(str(out))}"
    data += "" if "val" in splits else " --data.val-split train"
    print(f"page:  {out / 'convert.html'}")
    print(f"check: cfnseg doctor {data}")
    print(f"plan:  cfnseg plan {shlex.quote(str(out))}")
    print(f"train: cfnseg train {data} --name {shlex.quote(out.name)}")
