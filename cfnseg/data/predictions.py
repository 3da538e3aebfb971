"""A folder of masks that any program wrote, as predictions for the images of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cfnseg.data.files import existing, read_mask
from cfnseg.data.labels import LabelMap
from cfnseg.errors import UserError


def find_masks(folder: Path, names: list[str]) -> tuple[list[Path], list[Path]]:
    """The mask of each image, and the PNG files of the folder that belong to none.

    Args:
        folder: has ``<name>.png`` or, as tools/infer.py writes them, ``<name>_mask.png``; a "/" in a name is a "_" in the file's.
        names: of the images.

    Raises:
        UserError: no such folder; images without a mask, or with one under either name: how many, and the first of them.
    """
    existing(folder, "the folder of predictions", "Give a folder that has <image name>.png for every image.")
    files = {path.name: path for path in sorted(folder.iterdir()) if path.suffix == ".png"}
    found, lacking, twice = [], [], []
    for name in names:
        stem = name.replace("/", "_")
        here = [files[n] for n in (f"{stem}.png", f"{stem}_mask.png") if n in files]
        (found if len(here) == 1 else twice if here else lacking).append(here[0] if len(here) == 1 else stem)
    if lacking:
        raise UserError(f"no prediction for {len(lacking)} of {len(names)} images: neither {lacking[0]}.png nor {lacking[0]}_mask.png "
                        f"in {folder}, which has {len(files)} PNG files{_more(lacking)}")
    if twice:
        several = f"{len(twice)} images have" if len(twice) > 1 else "1 image has"
        raise UserError(f"{several} two predictions in {folder}, first {twice[0]}.png and {twice[0]}_mask.png; "
                        f"keep one{_more(twice)}")
    return found, sorted(set(files.values()) - set(found))


def _more(stems: list[str]) -> str:
    return f"; also {', '.join(stems[1:4])}{' ...' if len(stems) > 4 else ''}" if len(stems) > 1 else ""


def read_prediction(path: Path, labels: LabelMap, shape: tuple[int, ...]) -> np.ndarray:
    """A predicted mask as (H, W) uint8 train ids; `IGNORE` where the mask has an ignored id, which is to say no class.

    Raises UserError if it cannot be read, has an unknown id, or is not of ``shape``, the truth's.
    """
    return labels.encode(read_predicted_ids(path, shape), path)


def read_predicted_ids(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A predicted mask as (H, W) uint8 raw ids, unknown ones among them; UserError if it cannot be read or is not of ``shape``."""
    mask = read_mask(path)
    if mask.shape != shape:
        raise UserError(f"{path} is {mask.shape[1]}x{mask.shape[0]}, the truth is {shape[1]}x{shape[0]}; "
                        "masks are scored at the truth's size")
    return mask
