"""Images with one label each: folders or zips of class folders, and CIFAR's own files."""

from __future__ import annotations

import functools
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from cfnseg.data.decode import decode_image
from cfnseg.data.files import IMAGE_TYPES, existing, is_hidden, list_files, read_image
from cfnseg.data.formats import cifar
from cfnseg.data.labels import ClassNames
from cfnseg.errors import UserError

LAYOUT = "Expected <split>/<class>/<image> in a folder or a zip; set --data.root (evaluation: --root)."
USUAL_ROOT = {"cifar10": "data/cifar10", "cifar100": "data/cifar100", "image_folder": "data/images"}


class ImageSet:
    """One split.

    Args:
        names: a name per image, "<class>/<rest of the path>", unique.
        targets: (N,) class of each image.
        labels: the classes.
        load: index -> (H, W, 3) uint8 RGB; picklable, for loader processes that are not forked.
    """

    def __init__(self, names: list[str], targets: np.ndarray, labels: ClassNames, load: Callable[[int], np.ndarray]) -> None:
        self.names, self.targets, self.labels, self._load = names, np.asarray(targets, np.int64), labels, load

    def image(self, index: int) -> np.ndarray:
        """Image ``index``, (H, W, 3) uint8 RGB. Raises UserError for a file that cannot be read."""
        return self._load(index)

    def subset(self, indices: np.ndarray) -> ImageSet:
        """These images alone."""
        load = functools.partial(_load_of, self._load, indices)
        return ImageSet([self.names[i] for i in indices], self.targets[indices], self.labels, load)

    def in_memory(self, size: tuple[int, int]) -> ImageSet:
        """The same with every image decoded now; UserError for one of another (H, W) than ``size``."""
        images = np.empty((len(self.names), *size, 3), np.uint8)
        for i, name in enumerate(self.names):
            image = self._load(i)
            if image.shape[:2] != size:
                raise UserError(f"{name} is {image.shape[1]}x{image.shape[0]}, CIFAR's images are {size[1]}x{size[0]}; "
                                "use --data.name image_folder for other data")
            images[i] = image
        return ImageSet(self.names, self.targets, self.labels, images.__getitem__)


def _load_of(load: Callable[[int], np.ndarray], indices: np.ndarray, i: int) -> np.ndarray:
    return load(int(indices[i]))


def open_images(name: str, root: str, split: str, download: bool = False, classes: list[str] | None = None) -> ImageSet:
    """One split of an image-level data set.

    Args:
        name: cifar10, cifar100 or image_folder.
        root: its folder or zip; "" = the usual place under data/. For CIFAR the folder that has torchvision's files, or class
            folders with CIFAR's class names.
        split: train, test, ... as the data set has them.
        download: fetch CIFAR first.
        classes: those that a net was trained on, in their order; None = the split's own. The split may lack some of them.

    Raises:
        UserError: unknown name, missing data, a class that is missing or not among ``classes``, a file that is no image.
    """
    if name not in USUAL_ROOT:
        raise UserError(f"data.name {name!r} has no image labels; there are {', '.join(USUAL_ROOT)}", code=2)
    path = Path(root or USUAL_ROOT[name]).expanduser()
    if download and name == "image_folder":
        raise UserError("data.download: image_folder cannot be downloaded", code=2)
    if name != "image_folder" and (download or cifar.has_files(path, name)):
        images, targets, own = cifar.read(path, name, split, download)
        names = [f"{own[t]}/{i:05d}" for i, t in enumerate(targets)]
        _demand_known(own, classes, path, split)
        return ImageSet(names, targets, ClassNames(own), images.__getitem__)
    existing(path, name, LAYOUT if name == "image_folder" else f"{cifar.REMEDY} {LAYOUT}")
    files: Files = _Zip(path) if path.is_file() else _Folder(path)
    chosen = _of_split(files, split, path)
    own = sorted({member[1] for member in chosen})
    if name != "image_folder":
        own = cifar.demand_classes(name, own, path)
    _demand_known(own, classes, path, split)
    order = classes or own
    index = {c: i for i, c in enumerate(order)}
    found = ImageSet(["/".join(member[1:]) for member in chosen], np.array([index[member[1]] for member in chosen]),
                     ClassNames(order), functools.partial(_load_member, files, ["/".join(member) for member in chosen]))
    return found if name == "image_folder" else found.in_memory((32, 32))


def _demand_known(own: list[str], classes: list[str] | None, path: Path, split: str) -> None:
    if classes is not None and (more := sorted(set(own) - set(classes))):
        raise UserError(f"{path}, split {split}: {', '.join(more[:5])} is not among the {len(classes)} classes that were trained on, "
                        f"{', '.join(classes[:5])}...")


def _load_member(files: Files, members: list[str], i: int) -> np.ndarray:
    return files.load(members[i])


class Files(Protocol):
    """A tree of files, in a folder or a zip."""

    def members(self, split: str) -> list[str]:
        """Paths of the files below the folder ``split``, relative to the root, with forward slashes."""
        ...

    def splits(self) -> list[str]:
        """What lies at the top."""
        ...

    def load(self, member: str) -> np.ndarray:
        """One image."""
        ...


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def members(self, split: str) -> list[str]:
        if not (self.root / split).is_dir():
            return []
        return [p.relative_to(self.root).as_posix() for p in list_files(self.root / split, deep=True)]

    def splits(self) -> list[str]:
        return [p.name for p in self.root.iterdir()]

    def load(self, member: str) -> np.ndarray:
        return read_image(self.root / member)


class _Zip:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: tuple[int, zipfile.ZipFile] | None = None

    def members(self, split: str) -> list[str]:
        return [i.filename for i in self._file().infolist() if not i.is_dir() and i.filename.startswith(f"{split}/")]

    def splits(self) -> list[str]:
        return [i.filename.split("/")[0] for i in self._file().infolist()]

    def load(self, member: str) -> np.ndarray:
        try:
            data = self._file().read(member)
        except (OSError, RuntimeError, zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError, KeyError) as error:
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


def _of_split(files: Files, split: str, path: Path) -> list[tuple[str, ...]]:
    """The members <split>/<class>/.../<image>, split at their slashes; UserError if there is none or one is no image by its name.

    Hidden files and folders are left out, and what lies beside the class folders.
    """
    parts = sorted(tuple(member.split("/")) for member in files.members(split))
    chosen = [p for p in parts if len(p) >= 3 and not any(map(is_hidden, p))]
    if not chosen:
        have = sorted(set(files.splits()))
        raise UserError(f"0 images matched {split}/<class>/<image> in {path}; it has {', '.join(have[:8]) or 'nothing'}. {LAYOUT}")
    if other := ["/".join(p) for p in chosen if not p[-1].lower().endswith(IMAGE_TYPES)]:
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
