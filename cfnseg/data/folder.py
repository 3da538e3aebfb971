"""Any folder data set: images/<split>/*, labels/<split>/*.png, classes.txt."""

from __future__ import annotations

from pathlib import Path

from cfnseg.data.files import IMAGE_TYPES, existing, nonempty
from cfnseg.data.labels import LabelMap, read_classes
from cfnseg.errors import UserError

LAYOUT = "Expected <root>/images/<split>/*.jpg, <root>/labels/<split>/*.png and <root>/classes.txt; set --data.root."


def pairs(root: Path, split: str) -> tuple[list[tuple[Path, Path]], LabelMap]:
    """Image and mask paths of a split, sorted by name, and the classes of ``classes.txt``.

    Raises UserError for a missing folder, no images, or images without a mask.
    """
    existing(root, "the folder data set", LAYOUT)
    labels = read_classes(existing(root / "classes.txt", "classes.txt", LAYOUT))
    folder = existing(root / "images" / split, f"split {split!r}", LAYOUT)
    masks = existing(root / "labels" / split, f"the masks of split {split!r}", LAYOUT)
    images = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_TYPES)
    found = nonempty(((p, masks / f"{p.stem}.png") for p in images), folder, f"*[{'|'.join(IMAGE_TYPES)}]")
    if lacking := [p.name for p, mask in found if not mask.exists()]:
        raise UserError(f"{len(lacking)} of {len(found)} images in {folder} have no mask {masks}/<name>.png, "
                        f"first {', '.join(lacking[:3])}")
    return found, labels
