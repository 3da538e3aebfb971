"""Classification data: folders or zips of class folders, and CIFAR's own files."""

from __future__ import annotations

import functools
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cfnseg.data.decode import decode_image
from cfnseg.data.files import IMAGE_TYPES, existing, is_hidden, list_files, read_image
from cfnseg.data.formats import cifar
from cfnseg.data.labels import ClassNames
from cfnseg.errors import UserError

LAYOUT = (
    "Expected <split>/<class>/<image> in a folder or a zip; set --data.root (evaluation: --root)."
)
USUAL_ROOT = {"cifar10": "data/cifar10", "cifar100": "data/cifar100", "image_folder": "data/images"}


class ImageSet:
    """One split of a classification data set.

    Args:
        names: a name per image, "<class>/<rest of the path>", unique.
        targets: (N,) class of each image.
        labels: the classes.
        image: index -> (H, W, 3) uint8 RGB; UserError for a file that cannot be read. Picklable,
            for loader processes that are not forked.
    """

    def __init__(
        self,
        names: list[str],
        targets: np.ndarray,
        labels: ClassNames,
        image: Callable[[int], np.ndarray],
    ) -> None:
        self.names, self.labels, self.image = names, labels, image
        self.targets = np.asarray(targets, np.int64)

    def subset(self, indices: np.ndarray) -> ImageSet:
        """A view of some images."""
        image = functools.partial(_image_of, self.image, indices)
        return ImageSet([self.names[i] for i in indices], self.targets[indices], self.labels, image)

    def in_memory(self, size: tuple[int, int]) -> ImageSet:
        """The same with every image decoded now; UserError for an image of another (H, W)."""
        images = np.empty((len(self.names), *size, 3), np.uint8)
        for i, name in enumerate(self.names):
            image = self.image(i)
            if image.shape[:2] != size:
                raise UserError(
                    f"{name} is {image.shape[1]}x{image.shape[0]}, CIFAR's images are "
                    f"{size[1]}x{size[0]}; use --data.name image_folder for other data"
                )
            images[i] = image
        return ImageSet(self.names, self.targets, self.labels, images.__getitem__)


def _image_of(image: Callable[[int], np.ndarray], indices: np.ndarray, i: int) -> np.ndarray:
    return image(int(indices[i]))


def open_images(
    name: str, root: str, split: str, download: bool = False, classes: list[str] | None = None
) -> ImageSet:
    """One split of a classification data set.

    Args:
        name: cifar10, cifar100 or image_folder.
        root: its folder or zip; "" = the usual place under data/. For CIFAR: the folder with
            torchvision's files, or class folders with CIFAR's class names.
        split: train, test, ... as the data set has them.
        download: fetch CIFAR first.
        classes: the classes of a trained model, in its order; None = the split's own. The split may
            lack some.

    Raises:
        UserError: unknown name, missing data, a missing class or one not among ``classes``, a file
            that is not an image.
    """
    if name not in USUAL_ROOT:
        raise UserError(
            f"data.name {name!r} has no image labels; there are {', '.join(USUAL_ROOT)}", code=2
        )
    path = Path(root or USUAL_ROOT[name]).expanduser()
    if download and name == "image_folder":
        raise UserError("data.download: image_folder cannot be downloaded", code=2)
    if name != "image_folder" and (download or cifar.has_files(path, name)):
        images, targets, own = cifar.read(path, name, split, download)
        _demand_known(own, classes, path, split)
        names = [f"{own[t]}/{i:05d}" for i, t in enumerate(targets)]
        return ImageSet(names, targets, ClassNames(own), images.__getitem__)
    existing(path, name, LAYOUT if name == "image_folder" else f"{cifar.REMEDY} {LAYOUT}")
    members = _members(path, split)
    own = sorted({member.split("/")[1] for member in members})
    if name != "image_folder":
        own = cifar.demand_classes(name, own, path)
    _demand_known(own, classes, path, split)
    order = classes or own
    found = ImageSet(
        [member.split("/", 1)[1] for member in members],
        [order.index(member.split("/")[1]) for member in members],
        ClassNames(order),
        functools.partial(_load, path, members),
    )
    return found if name == "image_folder" else found.in_memory((32, 32))


def _demand_known(own: list[str], classes: list[str] | None, path: Path, split: str) -> None:
    if classes is not None and (more := sorted(set(own) - set(classes))):
        raise UserError(
            f"{path}, split {split}: {', '.join(more[:5])} is not among the {len(classes)} "
            f"classes that were trained on, {', '.join(classes[:5])}..."
        )


def _members(path: Path, split: str) -> list[str]:
    """Paths ``<split>/<class>/.../<image>`` in a folder or zip, sorted by their parts.

    Leaves out hidden files and folders, and files outside a class folder. Raises UserError for a
    split without images, or a file without an image suffix.
    """
    if path.is_file():
        everything = [i.filename for i in _opened(path).infolist() if not i.is_dir()]
        top = {name.split("/")[0] for name in everything}
    else:
        inside = list_files(path / split, deep=True) if (path / split).is_dir() else []
        everything = [p.relative_to(path).as_posix() for p in inside]
        top = {p.name for p in path.iterdir()}
    parts = sorted(name.split("/") for name in everything)
    chosen = [
        "/".join(p) for p in parts if p[0] == split and len(p) >= 3 and not any(map(is_hidden, p))
    ]
    if not chosen:
        raise UserError(
            f"0 images matched {split}/<class>/<image> in {path}; it has "
            f"{', '.join(sorted(top)[:8]) or 'nothing'}. {LAYOUT}"
        )
    if other := [name for name in chosen if not name.lower().endswith(IMAGE_TYPES)]:
        raise UserError(
            f"{path}, {other[0]}: no image ({len(other)} such files); "
            f"expected *{' *'.join(IMAGE_TYPES)}"
        )
    return chosen


def _load(path: Path, members: list[str], i: int) -> np.ndarray:
    if path.is_dir():
        return read_image(path / members[i])
    source = f"{path}, {members[i]}"
    try:
        data = _opened(path).read(members[i])
    except (
        OSError,
        RuntimeError,
        zipfile.BadZipFile,
        NotImplementedError,
        zlib.error,
        EOFError,
        KeyError,
    ) as error:
        raise UserError(f"{source}: {error}") from None
    return decode_image(data, source)


def _opened(path: Path) -> zipfile.ZipFile:
    """The zip, opened once per process: forked processes would share the position of one handle."""
    try:
        return _open_zip(path, path.stat().st_mtime_ns, os.getpid())
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: no folder and no readable zip ({error}). {LAYOUT}") from None


@functools.lru_cache(maxsize=4)
def _open_zip(path: Path, written: int, process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def hold_out_images(images: ImageSet, count: str) -> tuple[ImageSet, ImageSet]:
    """All but ``count`` images, and those: class-balanced (up to one), equal in every run.

    Raises UserError if ``count`` is not a number or takes all images of a class.
    """
    classes = len(images.labels)
    if not count.isdigit() or int(count) < classes:
        raise UserError(
            f"data.holdout {count!r}: expected a number of images, {classes} or more "
            "(one of each class)",
            code=2,
        )
    rng = np.random.default_rng(0)
    held = []
    for c in range(classes):
        of_class = np.flatnonzero(images.targets == c)
        wanted = int(count) // classes + (c < int(count) % classes)
        if wanted >= len(of_class):
            raise UserError(
                f"data.holdout {count}: class {images.labels.names[c]} has only "
                f"{len(of_class)} images",
                code=2,
            )
        held.append(rng.permutation(of_class)[:wanted])
    taken = np.sort(np.concatenate(held))
    return images.subset(np.setdiff1d(np.arange(len(images.names)), taken)), images.subset(taken)
