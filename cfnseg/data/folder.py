"""Any folder data set: images/<split>/*, labels/<split>/*.png, classes.txt."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from cfnseg.data.files import IMAGE_TYPES, existing, list_images, nonempty, note_left_out, partners
from cfnseg.data.labels import LabelMap, read_classes
from cfnseg.errors import UserError

LAYOUT = "Expected <root>/images/<split>/*.jpg, <root>/labels/<split>/*.png and <root>/classes.txt; set --data.root (evaluation: --root)."


def pairs(root: Path, split: str) -> tuple[list[tuple[Path, Path]], LabelMap]:
    """Image and mask paths of a split, see `images_and_masks`, and the classes of ``classes.txt``."""
    existing(root, "the folder data set", LAYOUT)
    labels = read_classes(existing(root / "classes.txt", "classes.txt", LAYOUT))
    return images_and_masks(root, split), labels


def images_and_masks(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Image and mask paths of a split, those in deeper folders too, sorted by name.

    Files that are no images by their suffix are left out, with a note.

    Raises UserError for a missing folder, no images, images without a mask, or two images for one mask.
    """
    folder = existing(root / "images" / split, f"split {split!r}", LAYOUT)
    masks = existing(root / "labels" / split, f"the masks of split {split!r}", LAYOUT)
    images, others = list_images(folder, deep=True)
    note_left_out(folder, others)
    images = nonempty(images, folder, f"**/*[{'|'.join(IMAGE_TYPES)}]")
    names = [p.relative_to(folder).with_suffix("").as_posix() for p in images]
    found = partners(names, masks, ".png")
    if lacking := [p for p, name in zip(images, names) if name not in found]:
        first = ", ".join(p.relative_to(folder).as_posix() for p in lacking[:3])
        raise UserError(f"{len(lacking)} of {len(images)} images in {folder} have no mask {masks}/<name>.png, first {first}")
    used = Counter(found[name] for name in names)  # by two, if their names differ in suffix or Unicode form alone
    if twice := next((mask for mask, count in used.items() if count > 1), None):
        raise UserError(f"{folder} has two images for the mask {twice}: names without their suffix must be unique")
    return [(image, found[name]) for image, name in zip(images, names)]
