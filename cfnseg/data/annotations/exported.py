"""An annotation tool's export as a data set: classes, splits, photographs, and masks on demand.

`cfnseg convert` writes what is read here, and `data.name` trains on it without a copy.
"""

from __future__ import annotations

import itertools
import os
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cfnseg.data.annotations.class_lines import Classes, chosen_classes, own_classes
from cfnseg.data.annotations.detection import FORMATS, reader
from cfnseg.data.annotations.parsing import count_of
from cfnseg.data.annotations.photographs import SPLITS
from cfnseg.data.annotations.regions import AnnotatedImage, Annotations, draw
from cfnseg.data.annotations.splitting import split_images
from cfnseg.data.decode import FAULTS, stored_form
from cfnseg.data.files import IMAGE_TYPES, is_image, name_key, pixels_of, read_bytes, short_names
from cfnseg.data.labels import IGNORE
from cfnseg.errors import UserError, first_line

# data.name -> format; "coco" is the official data set's layout
EXPORTS = {"coco_json" if kind == "coco" else kind: kind for kind in FORMATS}
SHARE = 0.2  # of the images that validate where the export names none
FEW = 3  # names in an error
# a stored array of pixels turned upright, by the EXIF orientation that swaps its sides
TURNS = {
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@dataclass(frozen=True)
class Placed:
    """An annotated image with its place in a data set.

    Attributes:
        image: its annotation.
        split, name: images/<split>/<name> of a folder data set.
    """

    image: AnnotatedImage
    split: str
    name: str


@dataclass(frozen=True)
class Export:
    """An export with a photograph for each image.

    Attributes:
        classes: to draw.
        images: in the order of their photographs' paths.
        notes: what was skipped and why, a line each.
        divided: the export names no split val; `split_images` chose it.
    """

    classes: Classes
    images: list[Placed]
    notes: list[str]
    divided: bool


def read_export(
    kind: str,
    source: Path,
    val: float = SHARE,
    group_by: str = "",
    classes: Path | None = None,
    images: Path | None = None,
) -> Export:
    """Read an export; masks are drawn later, by `draw_mask`.

    Args:
        kind: one of `FORMATS`.
        source: its folder or file.
        val: share of the images that validate; see `split_images`.
        group_by: see `cfnseg.data.folds.group_of`.
        classes: see `chosen_classes`; for masks without a table of values, their table too.
        images: the photographs' folder; None = as the format says.

    Raises:
        UserError: no such export, or one that is wrong.
    """
    demand_export(source)
    more = {"table": classes} if kind == "masks" else {}
    annotations = reader(kind)(source, images, **more)
    present, notes = _present(annotations)
    chosen = chosen_classes(classes, annotations) if classes else own_classes(annotations)
    present.sort(key=lambda image: image.path)
    given = [SPLITS.get(image.split.lower(), image.split) for image in present]
    names = _names(present)
    splits = split_images(names, given, val, group_by)
    placed = [Placed(*each) for each in zip(present, splits, names)]
    return Export(chosen, placed, notes, "val" not in given)


def demand_export(source: Path) -> None:
    """Raise UserError (usage) if there is no such file or folder, or it is a zip."""
    if not source.exists():
        raise UserError(f"{source} does not exist; give the export's folder or file", code=2)
    if source.is_file() and zipfile.is_zipfile(source):
        raise UserError(f"{source} is a zip; unpack it, and give the folder", code=2)


def _present(annotations: Annotations) -> tuple[list[AnnotatedImage], list[str]]:
    """The images with a photograph, and notes; UserError if there are none, or other file types."""
    kept = [x for x in annotations.images if x.path.is_file() or x.embedded]
    missing = [x.path for x in annotations.images if not (x.path.is_file() or x.embedded)]
    notes = list(annotations.notes)
    if missing:
        names = ", ".join(str(p) for p in missing[:FEW]) + ", ..." * (len(missing) > FEW)
        every = count_of(len(annotations.images), "photograph")
        text = f"{len(missing)} of {every} missing: {names}"
        if not kept:
            raise UserError(f"{text}; give their folder with cfnseg convert --images DIR")
        notes.append(f"{text}; left out")
    if not kept:
        raise UserError("the export has no image")
    if strange := next((x.path for x in kept if not is_image(x.path)), None):
        raise UserError(f"{strange}: no image by its suffix; expected {' '.join(IMAGE_TYPES)}")
    return kept, notes


def _names(images: list[AnnotatedImage]) -> list[str]:
    """A name for each image, in order of path; one that occurs twice has its folders before it."""
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
    return names


def photograph(image: AnnotatedImage) -> bytes:
    """The photograph's file, from the disk, else from the export."""
    return read_bytes(image.path) if image.path.is_file() else image.embedded()


def draw_mask(image: AnnotatedImage, data: bytes, classes: Classes) -> tuple[np.ndarray, bool]:
    """The raw ids (H, W) uint8 of the photograph ``data`` as it is shown; did EXIF turn them?

    Raises UserError for a photograph that cannot be read, or of another size than the annotation.
    """
    size, turn = _sizes(data, image)
    mask = draw(image, size, classes.ids, classes.background, IGNORE).astype(np.uint8)
    return np.ascontiguousarray(turn(mask)) if turn else mask, turn is not None


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


class ExportDataset:
    """Splits of an export, as `cfnseg.data.dataset.Dataset`; a mask is drawn whenever it is read.

    Names, order and ids are those of the folder that `cfnseg convert` writes.

    Args:
        export: what was read.
        splits: whose images it has.
        channels: see `cfnseg.config.Data`.

    Raises:
        UserError: a split without images.
    """

    def __init__(self, export: Export, splits: list[str], channels: int = 0) -> None:
        self.channels = channels
        self.classes, self.labels = export.classes, export.classes.labels
        self.images: list[AnnotatedImage] = []
        names: list[Path] = []
        for split in splits:
            own = sorted((x for x in export.images if x.split == split), key=lambda x: Path(x.name))
            if not own:
                counts = Counter(x.split for x in export.images)
                there = ", ".join(f"{name} ({n:,} images)" for name, n in sorted(counts.items()))
                raise UserError(f"split {split!r} not found; the export has {there}", code=2)
            names += [Path(split, x.name) for x in own]
            self.images += [x.image for x in own]
        self.names = short_names(names)

    def image(self, index: int) -> np.ndarray:
        """See `Dataset.image`."""
        image = self.images[index]
        return pixels_of(photograph(image), image.path, self.channels)

    def ids(self, index: int) -> np.ndarray:
        """See `Dataset.ids`. Raises UserError for an annotation of another size than the image."""
        image = self.images[index]
        return draw_mask(image, photograph(image), self.classes)[0]
