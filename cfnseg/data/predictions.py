"""Predicted masks in a folder, written by any program."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from cfnseg.data.files import by_key, existing, list_files, name_key, read_stored
from cfnseg.data.labels import IGNORE, LabelMap
from cfnseg.errors import UserError


def find_masks(folder: Path, names: list[str]) -> tuple[list[Path], list[Path]]:
    """The mask of each image, and the other PNG files of the folder.

    Args:
        folder: has ``<name>.png`` or, as `cfnseg infer` writes it, ``<name>_mask.png``. A "/" in a
            name is a "_" in the file name.
        names: the images' names.

    Raises:
        UserError: no such folder; images without a mask or with two (count, and the first ones).
    """
    existing(
        folder,
        "the folder of predictions",
        "Give a folder that has <image name>.png for every image.",
    )
    pngs = [p for p in list_files(folder) if p.suffix.lower() == ".png"]
    files = by_key(pngs, folder)
    stems = [name.replace("/", "_") for name in names]
    found = [
        files.get(name_key(stem), []) + files.get(name_key(f"{stem}_mask"), []) for stem in stems
    ]
    if missing := [stem for stem, here in zip(stems, found) if not here]:
        first = missing[0]
        raise UserError(
            f"no prediction for {len(missing)} of {len(names)} images: neither {first}.png "
            f"nor {first}_mask.png in {folder}, which has {len(pngs)} PNG files{_more(missing)}"
        )
    if twice := [stem for stem, here in zip(stems, found) if len(here) > 1]:
        several = f"{len(twice)} images have" if len(twice) > 1 else "1 image has"
        first = " and ".join(path.name for path in found[stems.index(twice[0])][:2])
        raise UserError(
            f"{several} two predictions in {folder}, first {first}; keep one{_more(twice)}"
        )
    used = Counter(here[0] for here in found)
    if both := next((path for path, count in used.items() if count > 1), None):
        raise UserError(
            f"{both} would be the prediction of two images, whose names differ in / and _ "
            "alone; rename one of them"
        )
    return [here[0] for here in found], sorted(set(pngs) - used.keys())


def _more(stems: list[str]) -> str:
    more = f"; also {', '.join(stems[1:4])}{' ...' * (len(stems) > 4)}"
    return more if len(stems) > 1 else ""


def demand_raw_ids(
    labels: LabelMap, used: np.ndarray, hits: np.ndarray, as_train: np.ndarray
) -> None:
    """Raise UserError if predictions look like train ids instead of raw ids.

    They do if all ids are below the number of classes, some are not raw ids or several classes
    match, and twice as many pixels are right if taken as train ids.

    Args:
        labels: the data set's.
        used: (256,) pixels of each predicted id.
        hits, as_train: (C,) right pixels of each class if ids are raw ids, or train ids.
    """
    ids = set(np.flatnonzero(used).tolist()) - {IGNORE, labels.void}
    raw = {label.id for label in labels.labels}
    differ = [label.id for label in labels.labels] != list(range(len(labels)))
    alike = differ and max(ids, default=len(labels)) < len(labels)
    if alike and (ids - raw or (as_train > 0).sum() > 1) and as_train.sum() > 2 * hits.sum():
        first = labels.labels[0]
        few = ", ".join(map(str, sorted(ids)[:5])) + ", ..." * (len(ids) > 5)
        raise UserError(
            f"the predictions hold train ids (0 to {len(labels) - 1}; here {few}), expected "
            f"the raw ids of the data set ({first.name} is {first.id}): {as_train.sum():,} "
            f"pixels are right as train ids, {hits.sum():,} as raw ids. "
            "Map them with LabelMap.decode"
        )


def read_prediction(path: Path, labels: LabelMap, shape: tuple[int, ...]) -> np.ndarray:
    """A predicted mask as (H, W) uint8 train ids; `IGNORE` (no class) for ignored ids.

    Raises UserError if it cannot be read, has an unknown id or another shape than the truth.
    """
    return labels.encode(read_predicted_ids(path, labels, shape), path)


def read_predicted_ids(
    path: Path, labels: LabelMap, shape: tuple[int, ...], alone: bool = True, reference: str = ""
) -> np.ndarray:
    """A predicted mask as (H, W) uint8 raw ids, unknown ids included.

    Args:
        path: the file.
        labels: the data set's.
        shape: (H, W) of the truth.
        alone: as in `LabelMap.demand_one_meaning`.
        reference: what the shape is from, for the error; "" = the truth.

    Raises:
        UserError: it cannot be read, has another shape or two meanings.
    """
    stored = read_stored(path)
    labels.demand_one_meaning(stored, path, alone)
    mask = stored.ids
    if mask.shape != shape:
        truth = f"the truth is {shape[1]}x{shape[0]}; masks are scored at the truth's size"
        raise UserError(f"{path} is {mask.shape[1]}x{mask.shape[0]}, {reference or truth}")
    return mask
