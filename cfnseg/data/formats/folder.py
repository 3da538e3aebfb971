"""Any folder data set: images/<split>/*, labels/<split>/*.png, classes.txt."""

from __future__ import annotations

from pathlib import Path

from cfnseg.data.files import existing, paired
from cfnseg.data.labels import LabelMap, read_classes

LAYOUT = (
    "Expected <root>/images/<split>/*.jpg, <root>/labels/<split>/*.png and <root>/classes.txt; "
    "set --data.root (evaluation: --root)."
)


def pairs(root: Path, split: str) -> tuple[list[tuple[Path, Path]], LabelMap]:
    """Image and mask paths of a split (`images_and_masks`), and the classes of ``classes.txt``."""
    existing(root, "the folder data set", LAYOUT)
    labels = read_classes(existing(root / "classes.txt", "classes.txt", LAYOUT))
    return images_and_masks(root, split), labels


def images_and_masks(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Image and mask paths of a split, deeper folders included, as `paired` does it.

    Raises UserError for a missing folder, no images, images without a mask, or two images for one
    mask.
    """
    folder = existing(root / "images" / split, f"split {split!r}", LAYOUT)
    masks = existing(root / "labels" / split, f"the masks of split {split!r}", LAYOUT)
    return paired(folder, masks, deep=True)
