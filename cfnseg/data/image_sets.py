"""Images with one label each: folders or zips of class folders, and CIFAR's own files."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from cfnseg.data import cifar
from cfnseg.data.files import IMAGE_TYPES, decode_image, existing, read_image
from cfnseg.data.labels import ClassNames
from cfnseg.errors import UserError

LAYOUT = "Expected <split>/<class>/<image> in a folder or a zip; set --data.root (evaluation: --root)."
USUAL_ROOT = {"cifar10": "data/cifar10", "cifar100": "data/cifar100", "image_folder": "data/images"}


class ImageSet:
    """One split.

    Args:
        names: a name per image, "<class>/<stem>", unique.
        targets: (N,) class of each image.
        labels: the classes.
        load: index -> (H, W, 3) uint8 RGB.
    """

    def __init__(self, names: list[str], targets: np.ndarray, labels: ClassNames, load: Callable[[int], np.ndarray]) -> None:
        self.names, self.targets, self.labels, self._load = names, np.asarray(targets, np.int64), labels, load

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Image ``index``, (H, W, 3) uint8 RGB, and its class. Raises UserError for a file that cannot be read."""
        return self._load(index), int(self.targets[index])

    def subset(self, indices: np.ndarray) -> ImageSet:
        """These images alone."""
        return ImageSet([self.names[i] for i in indices], self.targets[indices], self.labels, lambda i: self._load(indices[i]))

    def in_memory(self) -> ImageSet:
        """The same with every image decoded now, for small images of one size."""
        images = np.stack([self._load(i) for i in range(len(self.names))])
        return ImageSet(self.names, self.targets, self.labels, images.__getitem__)


def open_images(name: str, root: str, split: str, download: bool = False) -> ImageSet:
    """One split of an image-level data set.

    Args:
        name: cifar10, cifar100 or image_folder.
        root: its folder or zip; "" = the usual place under data/. For CIFAR the folder that has torchvision's files, or class
            folders with CIFAR's class names.
        split: train, test, ... as the data set has them.
        download: fetch CIFAR first.

    Raises:
        UserError: unknown name, missing data, a class that is missing, a file that is no image.
    """
    if name not in USUAL_ROOT:
        raise UserError(f"data.name {name!r} has no image labels; there are {', '.join(USUAL_ROOT)}", code=2)
    path = Path(root or USUAL_ROOT[name]).expanduser()
    if download and name == "image_folder":
        raise UserError("data.download: image_folder cannot be downloaded", code=2)
    if name != "image_folder" and (download or cifar.has_files(path, name)):
        images, targets, classes = cifar.read(path, name, split, download)
        names = [f"{classes[t]}/{i:05d}" for i, t in enumerate(targets)]
        return ImageSet(names, targets, ClassNames(classes), images.__getitem__)
    existing(path, name, LAYOUT if name == "image_folder" else f"{cifar.REMEDY} {LAYOUT}")
    files: Files = _Zip(path) if path.is_file() else _Folder(path)
    chosen = _of_split(files.members(), split, path)
    classes = sorted({PurePosixPath(m).parts[1] for m in chosen})
    if name != "image_folder":
        classes = cifar.demand_classes(name, classes, path)
    targets = np.array([classes.index(PurePosixPath(m).parts[1]) for m in chosen])
    names = [str(PurePosixPath(*PurePosixPath(m).parts[1:]).with_suffix("")) for m in chosen]
    found = ImageSet(names, targets, ClassNames(classes), lambda i: files.load(chosen[i]))
    return found if name == "image_folder" else found.in_memory()


class Files(Protocol):
    """A tree of files, in a folder or a zip."""

    def members(self) -> list[str]:
        """Paths of all files, relative, with forward slashes, hidden ones left out."""
        ...

    def load(self, member: str) -> np.ndarray:
        """One image."""
        ...


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def members(self) -> list[str]:
        return sorted(p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file() and not _hidden(p.name))

    def load(self, member: str) -> np.ndarray:
        return read_image(self.root / member)


class _Zip:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: tuple[int, zipfile.ZipFile] | None = None

    def members(self) -> list[str]:
        return sorted(i.filename for i in self._file().infolist() if not i.is_dir() and not _hidden(PurePosixPath(i.filename).name)
                      and not i.filename.startswith("__MACOSX/"))

    def load(self, member: str) -> np.ndarray:
        try:
            data = self._file().read(member)
        except (OSError, RuntimeError, zipfile.BadZipFile, NotImplementedError) as error:
            raise UserError(f"{self.path}, {member}: {error}") from None
        return decode_image(data, f"{self.path}, {member}")

    def _file(self) -> zipfile.ZipFile:
        """The zip, opened once a process: a handle shared by forked loader processes would jump about."""
        if self.opened is None or self.opened[0] != os.getpid():
            try:
                self.opened = os.getpid(), zipfile.ZipFile(self.path)
            except (OSError, zipfile.BadZipFile) as error:
                raise UserError(f"{self.path}: no folder and no readable zip ({error}). {LAYOUT}") from None
        return self.opened[1]

    def __getstate__(self) -> dict:
        return {"path": self.path, "opened": None}


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "Thumbs.db"


def _of_split(members: list[str], split: str, path: Path) -> list[str]:
    """The members <split>/<class>/<image>; UserError if there is none or one is no image by its name."""
    chosen = [m for m in members if len(PurePosixPath(m).parts) == 3 and m.startswith(f"{split}/")]
    if not chosen:
        have = sorted({PurePosixPath(m).parts[0] for m in members})
        raise UserError(f"0 images matched {split}/<class>/<image> in {path}; it has {', '.join(have[:8]) or 'nothing'}. {LAYOUT}")
    if other := [m for m in chosen if PurePosixPath(m).suffix.lower() not in IMAGE_TYPES]:
        raise UserError(f"{path}, {other[0]}: no image ({len(other)} such files); expected *{' *'.join(IMAGE_TYPES)}")
    return chosen


def hold_out_images(images: ImageSet, count: str) -> tuple[ImageSet, ImageSet]:
    """All but ``count`` of the images, and those: the same number of every class (to one), the same in every run.

    Raises UserError if ``count`` is no number or takes a class whole.
    """
    if not count.isdigit() or int(count) < len(images.labels):
        raise UserError(f"data.holdout {count!r}: expected a number of images, {len(images.labels)} or more (one of each class)", code=2)
    each, more = divmod(int(count), len(images.labels))
    rng = np.random.default_rng(0)
    held = []
    for c in range(len(images.labels)):
        of_class = np.flatnonzero(images.targets == c)
        wanted = each + (c < more)
        if wanted >= len(of_class):
            raise UserError(f"data.holdout {count}: class {images.labels.names[c]} has only {len(of_class)} images", code=2)
        held.append(rng.permutation(of_class)[:wanted])
    taken = np.sort(np.concatenate(held))
    return images.subset(np.setdiff1d(np.arange(len(images.names)), taken)), images.subset(taken)
