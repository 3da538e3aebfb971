"""The validation data of a plan: the val split, or a part of the training images."""

from __future__ import annotations

from collections.abc import Sequence

from cfnseg.config import Data, SegmentationData
from cfnseg.data.annotations.exported import EXPORTS
from cfnseg.data.dataset import Dataset, hold_out, open_dataset
from cfnseg.data.folds import group_mark
from cfnseg.errors import UserError

PART = "0/7"  # data.fold where there is no val split: a seventh of the images


def open_splits(
    name: SegmentationData, root: str, holdout: str
) -> tuple[Dataset, Dataset, dict[str, str], str]:
    """Training and validation data, the settings of `Data` that hold images out, and why.

    Args:
        name, root: as data.name and data.root.
        holdout: as data.holdout; "" = the val split, or a fold where there is none.

    Raises:
        UserError: no such data, no images, or nothing that can be held out.
    """
    train = open_dataset(name, root, "train")
    if holdout:
        held, why = {"holdout": holdout}, "held out as asked for"
    else:
        try:
            return train, open_dataset(name, root, "val"), {}, "the split val"
        except UserError as error:
            if name not in ("folder", *EXPORTS) or "'val' not found" not in str(error):
                raise
        held, why = part_of(train.names), "there is no split val"
    return *hold_out(train, Data(name=name, root=root, **held)), held, why


def part_of(names: Sequence[str]) -> dict[str, str]:
    """data.fold, and data.group_by where names may be those of videos' frames."""
    mark = group_mark(names)
    return {"fold": PART, "group_by": mark} if mark else {"fold": PART}
