"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) through torchvision, and their class names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from cfnseg.errors import UserError, first_line

SETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
CIFAR10_CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
REMEDY = "Fetch it with --data.download True."


def has_files(root: Path, name: str) -> bool:
    """Whether torchvision's folder exists."""
    return (root / SETS[name].base_folder).is_dir()


def read(
    root: Path, name: str, split: str, download: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images (N, 32, 32, 3) uint8 RGB, targets (N,) and class names of "train" or "test".

    torchvision checks the files' published checksums. Raises UserError if files are missing or
    differ, or the download fails.
    """
    if split not in ("train", "test"):
        raise UserError(
            f"{name} has no split {split!r}; there are train and test "
            "(or hold out with --data.holdout 5000)"
        )
    try:
        found = SETS[name](str(root), train=split == "train", download=download)
    except Exception as error:  # network, disk, checksum: torchvision raises many kinds
        raise UserError(f"{name} in {root}: {first_line(error)}. {REMEDY}") from None
    return found.data, np.array(found.targets), list(found.classes)


def demand_classes(name: str, classes: list[str], root: Path) -> list[str]:
    """CIFAR's classes in order; UserError if the sorted ``classes`` differ from them."""
    if name == "cifar100":
        if len(classes) != 100:
            raise UserError(
                f"{root} has {len(classes)} class folders, CIFAR-100 has 100; "
                "use --data.name image_folder for other data"
            )
        return classes
    missing = sorted(set(CIFAR10_CLASSES) - set(classes))
    more = sorted(set(classes) - set(CIFAR10_CLASSES))
    if missing or more:
        faults = [f"lacks the class {', '.join(missing)}"] * bool(missing) + [
            f"has {', '.join(more)}, no class of CIFAR-10"
        ] * bool(more)
        raise UserError(
            f"{root} {' and '.join(faults)}; use --data.name image_folder for other data"
        )
    return CIFAR10_CLASSES
