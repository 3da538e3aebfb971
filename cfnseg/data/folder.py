"""Any folder data set: images/<split>/*, labels/<split>/*.png, classes.txt."""

from __future__ import annotations

from pathlib import Path

from cfnseg.data.files import IMAGE_TYPES, existing, nonempty
from cfnseg.data.labels import LabelMap, read_classes
from cfnseg.errors import UserError

LAYOUT = "Expected <root>/images/<split>/*.jpg, <root>/labels/<split>/*.png and <root>/classes.txt; set --data.root (evaluation: --root)."


def pairs(root: Path, split: str) -> tuple[list[tuple[Path, Path]], LabelMap]:
    """Image and mask paths of a split, see `images_and_masks`, and the classes of ``classes.txt``."""
    existing(root, "the folder data set", LAYOUT)
    labels = read_classes(existing(root / "classes.txt", "classes.txt", LAYOUT))
    return images_and_masks(root, split), labels


def images_and_masks(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Image and mask paths of a split, sorted by name.

    Raises UserError for a missing folder, no images, images without a mask, or two images for one mask.
    """
    folder = existing(root / "images" / split, f"split {split!r}", LAYOUT)
    masks = existing(root / "labels" / split, f"the masks of split {split!r}", LAYOUT)
    images = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_TYPES)
    found = nonempty(((p, masks / f"{p.stem}.png") for p in images), folder, f"*[{'|'.join(IMAGE_TYPES)}]")
    if lacking := [p.name for p, mask in found if not mask.exists()]:
        raise UserError(f"{len(lacking)} of {len(found)} images in {folder} have no mask {masks}/<name>.png, "
                        f"first {', '.join(lacking[:3])}")
    masks_used = [mask for _, mask in found]
    if len(set(masks_used)) < len(masks_used):
        twice = next(m for m in masks_used if masks_used.count(m) > 1)
        raise UserError(f"{folder} has two images for the mask {twice}: names without their suffix must be unique")
    return found
