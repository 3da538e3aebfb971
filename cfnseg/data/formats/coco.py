"""COCO 2017 in three label spaces, with masks drawn by `cfnseg.data.download.coco_masks`.

Sources: Lin et al. 2014; Caesar et al. 2018.
"""

from __future__ import annotations

import json
from pathlib import Path

from cfnseg.data.files import existing, paired
from cfnseg.data.labels import LabelMap


def image_folder(root: Path, split: str) -> Path:
    """``train2017`` or ``val2017`` in ``root`` or in its ``images``; both layouts are in use."""
    inside = root / "images" / f"{split}2017"
    return inside if inside.is_dir() else root / f"{split}2017"


def pairs(root: Path, split: str, name: str) -> tuple[list[tuple[Path, Path]], LabelMap]:
    """Image and mask paths of train or val, and the masks' classes.

    Args:
        root: has ``train2017`` and ``val2017`` (or ``images/train2017`` ...) and ``masks/<name>``.
        split: train or val.
        name: coco (80 things and background), coco_voc (VOC's 21 classes) or coco_stuff (80 things,
            91 stuffs).

    Raises:
        UserError: images or masks are missing.
    """
    remedy = f"Get it with: cfnseg prepare {name} --root {root}"
    images = existing(image_folder(root, split), f"COCO's images of split {split!r}", remedy)
    drawn = root / "masks" / name
    masks = existing(drawn / f"{split}2017", f"the {name} masks of split {split!r}", remedy)
    labels = existing(drawn / "labels.json", "their classes", remedy).read_text()
    return paired(images, masks, remedy), LabelMap.from_dict(json.loads(labels))
