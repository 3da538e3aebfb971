"""The validation data of a plan: the val split, or training images that are held out by name."""

from __future__ import annotations

import re
from collections import Counter

from cfnseg.config import SegmentationData
from cfnseg.data.dataset import Dataset, hold_out, is_held_out, open_dataset
from cfnseg.errors import UserError

WANTED, LEAST, MOST = 0.15, 0.05, 0.35  # share of the training images


def open_splits(
    name: SegmentationData, root: str, holdout: str
) -> tuple[Dataset, Dataset, str, str]:
    """Training and validation data, data.holdout, and why.

    Args:
        name, root: as data.name and data.root.
        holdout: as data.holdout; "" = the val split, or a proposal where there is none.

    Raises:
        UserError: no such data, no images, or no val split and names without parts to hold out.
    """
    train = open_dataset(name, root, "train")
    if holdout:
        return *hold_out(train, holdout), holdout, "held out as asked for"
    try:
        val = open_dataset(name, root, "val")
    except UserError as error:
        if name != "folder" or "'val' not found" not in str(error):
            raise
    else:
        return train, val, "", "the split val"
    found = propose(train.names)
    if not found:
        raise UserError(
            f"no val split, and no part of the {len(train.names)} training images can be held out "
            f"by name (first {train.names[0]}). Move a tenth of them, with their masks, to "
            "images/val and labels/val; or name a part: --holdout PATTERN",
            code=2,
        )
    return *hold_out(train, found), found, "there is no split val"


def propose(names: list[str]) -> str:
    """A pattern for data.holdout that holds out about 15 % of the images; "" if none does.

    Frames of one video are neighbours, so a group is never split: a group has one beginning, up to
    the first _ or -. Preferred are the groups that end in one digit, then one group. Images
    without groups are held out by the first letters of their names.
    """
    groups = Counter(match[0] for name in names if (match := re.match(r"[^_-]+[_-]", name)))
    if sum(groups.values()) == len(names) and 1 < len(groups) < len(names):
        digits = {f"*{group[-2:]}" for group in groups if group[-2].isdigit()}
        many = [p for p in sorted(digits) if _whole(p, names, groups)] if len(groups) >= 20 else []
        return _nearest(many, names) or _nearest(sorted(groups), names)
    starts = sorted({name[:length] for name in names for length in range(1, len(name))})
    plain = [s for s in starts if not set(s) & set("*?[")]
    return _nearest([*plain, *(f"{s}[0-{last}]" for s in plain for last in range(1, 5))], names)


def _whole(pattern: str, names: list[str], groups: Counter[str]) -> bool:
    """Is no group split by a pattern?"""
    held = {name for name in names if is_held_out(name, pattern)}
    return all(
        sum(name.startswith(group) for name in held) in (0, count)
        for group, count in groups.items()
    )


def _nearest(patterns: list[str], names: list[str]) -> str:
    """The pattern whose share of the names is nearest to 15 %, from 5 to 35 %; else ""."""
    shares = {p: sum(is_held_out(name, p) for name in names) / len(names) for p in patterns}
    usable = [p for p in patterns if LEAST <= shares[p] <= MOST]
    return min(usable, key=lambda p: abs(shares[p] - WANTED), default="")
