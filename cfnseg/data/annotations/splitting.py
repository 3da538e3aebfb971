"""Which images validate: by a hash of their names, groups together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cfnseg.data.folds import group_of


def split_images(
    names: Sequence[str], given: Sequence[str], share: float, pattern: str = ""
) -> list[str]:
    """The split of each image.

    Splits that the format names are kept. Without a val among them, groups of the others, those of
    train included, move to val in the order of a hash of their names until it has its share: at
    least one group, never all.

    Args:
        names: of the images.
        given: split of each, "" = none.
        share: of the images to divide that go to val, 0..1; 0 = none.
        pattern: of `group_of`.
    """
    divided = ("", "train") if "val" not in given else ()
    found = [split or "train" for split in given]
    groups: dict[str, list[int]] = {}
    for index, (name, split) in enumerate(zip(names, given)):
        if split in divided:
            groups.setdefault(group_of(name, pattern), []).append(index)
    order = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())
    wanted, taken = share * sum(map(len, groups.values())), 0
    for group in order[:-1] if share else []:
        if taken and taken + len(groups[group]) / 2 > wanted:
            continue
        taken += len(groups[group])
        for index in groups[group]:
            found[index] = "val"
    return found
