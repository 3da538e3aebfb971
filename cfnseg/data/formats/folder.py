"""Any folder data set: images/<split>/*, labels/<split>/*.png, classes.txt.

Labels that overlap are folders: labels/<split>/<name>/<class>.png, see `cfnseg.data.layers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cfnseg.data.files import existing, list_images, paired, partners
from cfnseg.data.labels import LabelMap, read_classes
from cfnseg.errors import UserError

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

    An image without a mask file may have a folder of its name instead, with a mask for each class.

    Raises UserError for a missing folder, no images, images without a mask or with both kinds, or
    two images for one mask.
    """
    folder = existing(root / "images" / split, f"split {split!r}", LAYOUT)
    masks = existing(root / "labels" / split, f"the masks of split {split!r}", LAYOUT)
    found = list_images(folder, deep=True)[0]
    named = {p.relative_to(folder).with_suffix("").as_posix(): p for p in found}
    layered = layered_names(named, folder, masks)
    if not layered or (files := partners(named, masks, ".png")).keys() >= named.keys():
        return paired(folder, masks, deep=True)
    if both := sorted(layered & files.keys()):
        raise UserError(
            f"{both[0]} has two kinds of masks, the file {files[both[0]]} and the folder "
            f"{masks / both[0]}; keep one"
        )
    if missing := sorted(named.keys() - layered - files.keys()):
        raise UserError(
            f"{len(missing)} of {len(named)} images in {folder} have no masks, first {missing[0]}; "
            f"an empty folder {masks / missing[0]} says that no class is in it"
        )
    if len(named) < len(found):
        raise UserError(
            f"{folder} has two images of one name: names without their suffix must be unique"
        )
    return [
        (image, masks / name if name in layered else files[name]) for name, image in named.items()
    ]


def layered_names(names: Iterable[str], images: Path, masks: Path) -> set[str]:
    """The images of a split that have a folder of masks; a folder of images has one that is
    none."""
    return {name for name in names if (masks / name).is_dir() and not (images / name).is_dir()}
