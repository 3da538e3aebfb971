"""From a name in an export to the photograph's file."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from cfnseg.data.files import list_images, name_key

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


class Photographs:
    """The image files of a folder, found by the names that exports have for them.

    Args:
        folder: with deeper folders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_name: dict[str, list[Path]] = {}
        for path in list_images(folder, deep=True)[0]:
            self._by_name.setdefault(name_key(path.name), []).append(path)

    def find(self, name: str, near: Path | None = None) -> Path:
        """The file for a name or path of an export, which may be of another machine.

        Tried are the path from ``near`` and from the folder, then the last name anywhere. Of
        several files with that last name, the one with the most equal folders above is taken.

        Args:
            name: as in the export; either slash.
            near: the folder that the path may be relative to.

        Returns:
            The file; where there is none, the path in the folder, which does not exist.
        """
        given = PurePosixPath(name.replace("\\", "/"))
        for start in (near, self.folder):
            if start and (start / given).is_file():
                return start / given
        found = self._by_name.get(name_key(given.name), [])
        if not found:
            return self.folder / (given.name if given.is_absolute() else given)
        return max(found, key=lambda path: _equal_ends(path.parts, given.parts))


def _equal_ends(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """The number of equal parts at the end."""
    count = 0
    while count < min(len(a), len(b)) and a[-1 - count] == b[-1 - count]:
        count += 1
    return count
