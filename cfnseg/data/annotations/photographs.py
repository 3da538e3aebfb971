"""From a name in an export to the photograph's file."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from cfnseg.data.files import list_files, name_key

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def split_of(*words: str) -> str:
    """The split that the first word of `SPLITS` names, in any case; "" without one."""
    return next((SPLITS[w.lower()] for w in words if w.lower() in SPLITS), "")


def locate(names: Sequence[Sequence[str]], folders: Sequence[Path], deep: bool) -> list[Path]:
    """The photograph of each entry of an export.

    A file is taken for an entry only if no other entry may mean it: of two entries ``a/x.jpg`` and
    ``b/x.jpg`` none is found as ``x.jpg``. Of several files of one name, the one with the most
    equal folders above is taken.

    Args:
        names: for each entry the paths that it may have, the most exact first.
        folders: where to look, in order.
        deep: look in deeper folders too.

    Returns:
        One path an entry; without a file that of its first name in the first folder.
    """
    entries = [[name.replace("\\", "/") for name in given] for given in names]
    owners: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        for name in entry:
            owners[name].add(entry[0])
            owners[_base(name)].add(entry[0])

    @functools.cache  # listed only if a name is not found as it stands
    def there() -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in {p for f in folders if _is_there(f, True) for p in list_files(f, deep)}:
            found[_base(path.name)].append(path)
        return found

    def find(entry: list[str]) -> Path:
        own = [name for name in entry if name == entry[0] or len(owners[name]) == 1]
        for path in (folder / name for name in own for folder in folders):
            if _is_there(path):
                return path
        for name in own:
            parts = name_key(name).split("/")
            files = there().get(_base(name), [])
            equal = [_equal_ends(path.parts, parts) for path in files]
            most = max(equal, default=0)
            key = "/".join(parts[-most:]) if most > 1 else _base(name)
            if equal.count(most) == 1 and len(owners.get(key, ())) <= 1:
                return files[equal.index(most)]
        return folders[0] / entry[0]

    return [find(entry) for entry in entries]


def _equal_ends(a: Sequence[str], b: Sequence[str]) -> int:
    """The number of equal parts at the end."""
    pairs = zip(map(name_key, reversed(a)), reversed(b))
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _is_there(path: Path, folder: bool = False) -> bool:
    try:
        return path.is_dir() if folder else path.is_file()
    except OSError:  # a name that is too long
        return False


def _base(name: str) -> str:
    return "/" + name_key(name.rpartition("/")[2])  # the slash keeps it apart from whole names


def tails(name: str) -> list[str]:
    """A path and its ends: "a/b/c" -> "a/b/c", "b/c", "c"."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    return ["/".join(parts[start:]) for start in range(len(parts))]
