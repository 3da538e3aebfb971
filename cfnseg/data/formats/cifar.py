"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the files that torchvision downloads and verifies, and their class names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from cfnseg.errors import UserError, first_line

SETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
REMEDY = "Fetch it with --data.download True."


def has_files(root: Path, name: str) -> bool:
    """Whether torchvision's folder is there."""
    return (root / SETS[name].base_folder).is_dir()


def read(root: Path, name: str, split: str, download: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images (N, 32, 32, 3) uint8 RGB, targets (N,) and class names of "train" or "test".

    torchvision compares the files' checksums with the published ones before it opens them. Raises UserError if they are
    missing or differ, or the download fails.
    """
    if split not in ("train", "test"):
        raise UserError(f"{name} has no split {split!r}; there are train and test (or hold out with --data.holdout 5000)")
    try:
        found = SETS[name](str(root), train=split == "train", download=download)
    except Exception as error:  # network, disk, checksum: torchvision raises many kinds
        raise UserError(f"{name} in {root}: {first_line(error)}. {REMEDY}") from None
    return found.data, np.array(found.targets), list(found.classes)


def demand_classes(name: str, classes: list[str], root: Path) -> list[str]:
    """The classes in CIFAR's order if the folders are exactly CIFAR's; UserError with what is missing or too many."""
    if name == "cifar100":
        if len(classes) != 100:
            raise UserError(f"{root} has {len(classes)} class folders, CIFAR-100 has 100; use --data.name image_folder for other data")
        return classes
    missing, more = sorted(set(CIFAR10_CLASSES) - set(classes)), sorted(set(classes) - set(CIFAR10_CLASSES))
    if missing or more:
        said = [f"lacks the class {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(more)}, no class of CIFAR-10"] * bool(more)
        raise UserError(f"{root} {' and '.join(said)}; use --data.name image_folder for other data")
    return CIFAR10_CLASSES
