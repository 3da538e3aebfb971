"""An export becomes a folder data set: whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import secrets
import shlex
import shutil
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.convert.class_lines import Classes, chosen_classes, own_classes
from cfnseg.convert.convert_page import convert_page
from cfnseg.convert.splitting import split_images
from cfnseg.data.annotations.detection import detect, reader
from cfnseg.data.annotations.photographs import SPLITS
from cfnseg.data.annotations.regions import AnnotatedImage, Annotations, draw
from cfnseg.data.decode import FAULTS, stored_form
from cfnseg.data.files import IMAGE_TYPES, is_image, name_key, read_bytes, read_image
from cfnseg.data.labels import IGNORE
from cfnseg.data.loader import parallel
from cfnseg.drawing import shrink
from cfnseg.errors import UserError, demand, first_line
from cfnseg.progress import progress
from cfnseg.report.text import plural

PICTURES = 24  # images on the page
SIDE = 480  # their longest side, the most
FEW = 3  # names in an error
# a stored array of pixels turned upright, by the EXIF orientation that swaps its sides
TURNS = {
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@dataclass(frozen=True)
class Work:
    """One image to convert.

    Attributes:
        image: its annotation.
        split, name: where it goes: images/<split>/<name>.
        shown: keep a picture of it for the page.
    """

    image: AnnotatedImage
    split: str
    name: str
    shown: bool


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
    val: float = 0.2,
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
    if not source.exists():
        raise UserError(f"{source} does not exist; give the export's folder or file", code=2)
    if source.is_file() and zipfile.is_zipfile(source):
        raise UserError(f"{source} is a zip; unpack it, and give the folder", code=2)
    if images and not images.is_dir():
        raise UserError(f"--images {images} is no folder", code=2)
    if kind == "auto":
        kind = detect(source) or ""
        if not kind:
            raise UserError(f"{source} looks like no known export; name its format", code=2)
        print(f"format: {kind}")
    more = {"table": classes} if kind == "masks" else {}
    annotations = reader(kind)(source, images, **more)
    present, notes = _present(annotations)
    chosen = chosen_classes(classes, annotations) if classes else own_classes(annotations)
    work = _plan(present, val, group_by)
    # a sibling, so that the rename stays on one disk
    temporary = out.parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
    try:
        temporary.mkdir(parents=True)
        function = functools.partial(_convert, temporary, chosen, link, work)
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


def _present(annotations: Annotations) -> tuple[list[AnnotatedImage], list[str]]:
    """The images with a photograph, and notes; UserError if there are none, or other file types."""
    kept = [x for x in annotations.images if x.path.is_file() or x.embedded]
    missing = [x.path for x in annotations.images if not (x.path.is_file() or x.embedded)]
    notes = list(annotations.notes)
    if missing:
        names = ", ".join(str(p) for p in missing[:FEW]) + ", ..." * (len(missing) > FEW)
        text = (
            f"{len(missing):,} of {plural(len(annotations.images), 'photograph')} missing: {names}"
        )
        if not kept:
            raise UserError(f"{text}; give their folder with --images DIR")
        notes.append(f"{text}; left out")
    if not kept:
        raise UserError("the export has no image")
    if strange := next((x.path for x in kept if not is_image(x.path)), None):
        raise UserError(f"{strange}: no image by its suffix; expected {' '.join(IMAGE_TYPES)}")
    return kept, notes


def _plan(images: list[AnnotatedImage], share: float, group_by: str) -> list[Work]:
    """Split and new name of each image; a name that occurs twice has its folders before it."""
    images = sorted(images, key=lambda image: image.path)
    for image, following in itertools.pairwise(images):
        if image.path == following.path:
            raise UserError(f"{image.path} is annotated twice; keep one of its annotations")
    stems = Counter(name_key(image.path.stem) for image in images)
    names = []
    above = os.path.commonpath([image.path.parent for image in images])
    for image in images:
        path = image.path
        unique = stems[name_key(path.stem)] == 1
        names.append(path.name if unique else path.relative_to(above).as_posix())
    twice = Counter(name_key(str(Path(name).with_suffix(""))) for name in names)
    for i, name in enumerate(names):
        path = Path(name)
        if twice[name_key(str(path.with_suffix("")))] > 1:  # a.jpg and a.png
            names[i] = str(path.with_name(f"{path.stem}_{path.suffix[1:]}{path.suffix}"))
    given = [SPLITS.get(image.split.lower(), image.split) for image in images]
    splits = split_images(names, given, share, group_by)
    shown = set(np.linspace(0, len(images) - 1, min(PICTURES, len(images))).astype(int).tolist())
    return [
        Work(image, split, name, i in shown)
        for i, (image, split, name) in enumerate(zip(images, splits, names))
    ]


def _convert(out: Path, classes: Classes, link: bool, works: list[Work], index: int) -> Done:
    """Write the photograph and the mask of one image."""
    work = works[index]
    image = replace(work.image, regions=list(work.image.regions))
    on_disk = image.path.is_file()
    data = read_bytes(image.path) if on_disk else image.embedded()
    size, turn = _sizes(data, image)
    mask = draw(image, size, classes.ids, classes.background, IGNORE).astype(np.uint8)
    mask = np.ascontiguousarray(turn(mask)) if turn else mask
    train = classes.labels.encode(mask, image.path)
    photograph = out / "images" / work.split / work.name
    label = (out / "labels" / work.split / work.name).with_suffix(".png")
    try:
        if not out.is_dir():  # stopped, and removed
            raise UserError(f"{out} is gone")
        for path in (photograph, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        if link and on_disk:
            os.link(image.path.resolve(), photograph)
        else:
            photograph.write_bytes(data)
        classes.labels.write(label, train)
    except OSError as error:
        advice = "; leave --link out" if link and error.errno in (errno.EXDEV, errno.EPERM) else ""
        raise UserError(f"{image.path} could not be written ({error.strerror}){advice}") from None
    shown = (read_image(photograph), train) if work.shown else None
    return Done(
        Counter(
            IGNORE if r.ignored else classes.ids[r.name]
            for r in image.regions
            if r.ignored or r.name in classes.ids
        ),
        np.bincount(mask.ravel(), minlength=256),
        (shrink(shown[0], SIDE), shrink(shown[1], SIDE, ids=True)) if shown else None,
        turn is not None,
    )


def _sizes(
    data: bytes, image: AnnotatedImage
) -> tuple[tuple[int, int], Callable[[np.ndarray], np.ndarray] | None]:
    """(H, W) of the annotation, and what turns its mask to the photograph as it is shown.

    None turns it, unless the annotation was made on stored pixels whose sides EXIF swaps.
    Raises UserError for another size than the export says, or no readable image.
    """
    try:
        stored, orientation = stored_form(data)
    except FAULTS as error:
        raise UserError(f"{image.path}: not a readable image ({first_line(error)})") from None
    turn = TURNS.get(orientation)
    size = stored[::-1] if turn else stored
    if image.size in (None, size):
        return size, None
    if turn and image.size == stored:
        return stored, turn
    raise UserError(
        f"{image.path} is {size[1]}x{size[0]}, its annotation {image.size[1]}x{image.size[0]}; "
        "the photograph was resized or is another one"
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


def _pictures(work: list[Work], done: list[Done]) -> list[tuple[str, str, np.ndarray, np.ndarray]]:
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
    print(f"train: cfnseg train {data} --name {shlex.quote(out.name)}")
