"""Which training images are held out: by the beginning of their names, or as one of n folds."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Sequence

from cfnseg.config import Data


def group_of(name: str, pattern: str) -> str:
    """The shortest beginning of a name that ends as ``pattern`` says; the name if none does.

    "_" is up to the first underscore, "_*_" up to the second, "????" the first four characters.
    """
    if not pattern:
        return name
    ends = (n for n in range(1, len(name) + 1) if fnmatch.fnmatchcase(name[:n], f"*{pattern}"))
    return name[: next(ends, len(name))]


def group_mark(names: Sequence[str]) -> str:
    """The pattern of `group_of` by which names begin alike in several groups, as those of videos'
    frames do: "_" or "-"; "" for none."""
    for mark in "_-":
        groups = {group_of(name, mark) for name in names}
        if all(mark in name for name in names) and 1 < len(groups) < len(names):
            return mark
    return ""


def folds_of(names: Sequence[str], count: int, pattern: str = "") -> list[int]:
    """The fold of each image, 0 to ``count`` - 1.

    Groups of names (`group_of`) stay together. The largest comes first, equal ones in the order of
    a hash of their names, each into the fold with the fewest images. So the order of ``names`` does
    not matter.
    """
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(group_of(name, pattern), []).append(index)
    digest = {group: hashlib.sha256(group.encode("utf-8", "surrogateescape")) for group in groups}
    order = sorted(groups, key=lambda group: (-len(groups[group]), digest[group].digest()))
    sizes, found = [0] * count, [0] * len(names)
    for group in order:
        fold = sizes.index(min(sizes))
        sizes[fold] += len(groups[group])
        for index in groups[group]:
            found[index] = fold
    return found


def held_out(names: Sequence[str], data: Data) -> list[bool]:
    """Is each image held out by data.holdout, or data.fold and data.group_by?"""
    if data.fold:
        fold, count = map(int, data.fold.split("/"))
        return [own == fold for own in folds_of(names, count, data.group_by)]
    return [bool(data.holdout) and fnmatch.fnmatchcase(n, data.holdout + "*") for n in names]


def rule(data: Data) -> str:
    """The setting that holds images out, for messages; "" if none does."""
    if data.fold:
        return f"data.fold {data.fold}" + f" by {data.group_by!r}" * bool(data.group_by)
    return f"data.holdout {data.holdout!r}" if data.holdout else ""
