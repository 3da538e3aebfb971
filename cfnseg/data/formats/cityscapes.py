"""Cityscapes: leftImg8bit and gtFine labelIds, 34 label ids, 19 trained (Cordts et al. 2016)."""

from __future__ import annotations

from pathlib import Path

from cfnseg.data.files import existing, list_files, nonempty
from cfnseg.data.labels import Label, LabelMap
from cfnseg.errors import UserError

TRAINED = [
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
]
# the license plate's id is -1, which an 8-bit file stores as 255
LABELS = LabelMap(
    [Label(*x) for x in TRAINED],
    void=0,
    ignore=(0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255),
)
# the ids of *_labelTrainIds.png files, whose names alone tell them apart
TRAIN_IDS = LabelMap(Label(k, name, color) for k, (_, name, color) in enumerate(TRAINED))
REMEDY = (
    "Get it with: cfnseg prepare cityscapes (free account); "
    "or set --data.root (evaluation: --root)."
)
TAIL = "_leftImg8bit.png"


def images(root: Path, split: str) -> list[Path]:
    """Image paths of train, val or test, by city and name. Raises UserError for missing files."""
    existing(root, "Cityscapes", REMEDY)
    root = _home(root)
    folder = existing(
        root / "leftImg8bit" / split, f"Cityscapes' images of split {split!r}", REMEDY
    )
    files = list_files(folder, deep=True)
    return nonempty(
        [p for p in files if p.name.endswith(TAIL) and p.parent.parent == folder],
        folder,
        f"*/*{TAIL}",
    )


def _home(root: Path) -> Path:
    """The folder with leftImg8bit/: ``root``, in it, or around it."""
    for home in (root, root / "cityscapes", root.resolve().parent):
        if (home / "leftImg8bit").is_dir():
            return home
    return root


def pairs(root: Path, split: str) -> tuple[list[tuple[Path, Path]], LabelMap]:
    """Image and labelIds paths of a split, by city and name, and the classes.

    Of a copy with labelTrainIds alone, those paths and `TRAIN_IDS`. Raises UserError for missing
    files.
    """
    found, root = images(root, split), _home(root)
    masks = existing(root / "gtFine" / split, f"Cityscapes' masks of split {split!r}", REMEDY)
    drawn = [masks / p.parent.name / p.name.replace(TAIL, "_gtFine_labelIds.png") for p in found]
    if missing := [mask for mask in drawn if not mask.exists()]:
        others = [m.with_name(m.name.replace("_labelIds", "_labelTrainIds")) for m in drawn]
        if len(missing) == len(drawn) and all(mask.exists() for mask in others):
            return list(zip(found, others)), TRAIN_IDS
        raise UserError(
            f"{len(missing)} of {len(found)} images have no labelIds mask, "
            f"first {missing[0]}. {REMEDY}"
        )
    return list(zip(found, drawn)), LABELS
