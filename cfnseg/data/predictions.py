"""A folder of masks that any program wrote, as predictions for the images of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cfnseg.data.files import by_key, existing, few_bits, list_files, name_key, note, read_stored
from cfnseg.data.labels import IGNORE, LabelMap
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
    files = by_key((p for p in list_files(folder) if p.suffix.lower() == ".png"), folder)
    count = sum(map(len, files.values()))
    found, lacking, twice = [], [], []
    for name in names:
        stem = name.replace("/", "_")
        here = [path for n in (stem, f"{stem}_mask") for path in files.get(name_key(n), [])]
        (found if len(here) == 1 else twice if here else lacking).append(here[0] if len(here) == 1 else (stem, here))
    if lacking:
        first = lacking[0][0]
        raise UserError(f"no prediction for {len(lacking)} of {len(names)} images: neither {first}.png nor {first}_mask.png "
                        f"in {folder}, which has {count} PNG files{_more(lacking)}")
    if twice:
        several = f"{len(twice)} images have" if len(twice) > 1 else "1 image has"
        raise UserError(f"{several} two predictions in {folder}, first {' and '.join(p.name for p in twice[0][1][:2])}; "
                        f"keep one{_more(twice)}")
    if len(set(found)) < len(found):
        both = next(path for path in found if found.count(path) > 1)
        raise UserError(f"{both} would be the prediction of two images, whose names differ in / and _ alone; rename one of them")
    return found, sorted({path for paths in files.values() for path in paths} - set(found))


def _more(cases: list[tuple[str, list[Path]]]) -> str:
    stems = [stem for stem, _ in cases]
    return f"; also {', '.join(stems[1:4])}{' ...' if len(stems) > 4 else ''}" if len(stems) > 1 else ""


def note_few_bits(masks: list[Path]) -> bool:
    """`few_bits` of predictions, with a note where it is so."""
    alone = few_bits(masks)
    if alone:
        note(f"the {len(masks)} predictions have fewer than 8 bits a gray pixel; their stored values are the ids, so white in 1 bit is "
             "id 1, not 255")
    return alone


def demand_raw_ids(labels: LabelMap, used: np.ndarray, hits: np.ndarray, as_train: np.ndarray) -> None:
    """Raise UserError if predictions look like train ids where raw ids are expected.

    They do if all are below the number of classes, some are not what a raw id would be, and taken as train ids they are
    right in several classes and more often.

    Args:
        labels: of the data set.
        used: (256,) pixels of each predicted id.
        hits, as_train: (C,) pixels of each class that are right if ids are raw ids, or train ids.
    """
    ids = set(np.flatnonzero(used).tolist()) - {IGNORE, labels.void}
    raw = {label.id for label in labels.labels}
    alike = max(ids, default=len(labels)) < len(labels) and [label.id for label in labels.labels] != list(range(len(labels)))
    if alike and (ids - raw or (as_train > 0).sum() > 1) and as_train.sum() > 2 * hits.sum():
        first = labels.labels[0]
        raise UserError(f"the predictions hold train ids (0 to {len(labels) - 1}; here {_few(ids)}), expected the raw ids of the data set "
                        f"({first.name} is {first.id}): {as_train.sum():,} pixels are right as train ids, {hits.sum():,} as raw ids. "
                        "Map them with LabelMap.decode")


def _few(ids: set[int]) -> str:
    return ", ".join(map(str, sorted(ids)[:5])) + ", ..." * (len(ids) > 5)


def read_prediction(path: Path, labels: LabelMap, shape: tuple[int, ...]) -> np.ndarray:
    """A predicted mask as (H, W) uint8 train ids; `IGNORE` where the mask has an ignored id, which is to say no class.

    Raises UserError if it cannot be read, has an unknown id, or is not of ``shape``, the truth's.
    """
    return labels.encode(read_predicted_ids(path, labels, shape), path)


def read_predicted_ids(path: Path, labels: LabelMap, shape: tuple[int, ...], alone: bool = True) -> np.ndarray:
    """A predicted mask as (H, W) uint8 raw ids, unknown ones among them.

    Raises UserError if it cannot be read, is not of ``shape``, or may have two meanings; ``alone`` as in
    `LabelMap.demand_one_meaning`.
    """
    stored = read_stored(path)
    labels.demand_one_meaning(stored, path, alone)
    mask = stored.ids
    if mask.shape != shape:
        raise UserError(f"{path} is {mask.shape[1]}x{mask.shape[0]}, the truth is {shape[1]}x{shape[0]}; "
                        "masks are scored at the truth's size")
    return mask
