"""What a data set is: names, a label map, and for each image its pixels and raw ids."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cfnseg.config import Data
from cfnseg.data.annotations.exported import EXPORTS, SHARE, ExportDataset, read_export
from cfnseg.data.bands import Bands
from cfnseg.data.download.downloaders import download_voc
from cfnseg.data.files import few_bits, note, read_image, read_stored, short_names
from cfnseg.data.folds import held_out, rule
from cfnseg.data.formats import ade20k, camvid, cityscapes, coco, folder, shapes, voc
from cfnseg.data.labels import IGNORE, LabelMap
from cfnseg.data.layers import read_layers
from cfnseg.errors import UserError


class Dataset(Protocol):
    """One split of a segmentation data set; `cfnseg.train` and `evaluate` take any such object.

    With loader processes that are not forked (macOS, Windows) it must be picklable.

    Attributes:
        labels: its classes.
        names: a name per image, unique in the split.

    Example:
        >>> import cfnseg, numpy
        >>> class Halves:
        ...     labels = cfnseg.LabelMap(
        ...         [cfnseg.Label(0, "left", (0, 0, 0)), cfnseg.Label(1, "right", (255, 0, 0))]
        ...     )
        ...     names = ["a", "b"]
        ...     def image(self, index):
        ...         return numpy.full((64, 64, 3), 40 * index, numpy.uint8)
        ...     def ids(self, index):
        ...         return numpy.repeat(numpy.array([[0, 1]], numpy.uint8), 32, 1).repeat(64, 0)
        >>> model = cfnseg.CFN("test_efficientnet", 2, width=8)
        >>> int(cfnseg.evaluate(model, Halves(), workers=0).confusion.sum())
        8192
    """

    labels: LabelMap
    names: list[str]

    def image(self, index: int) -> np.ndarray:
        """Image ``index``, (H, W, 3) uint8 RGB, or (H, W, C) uint8, uint16 or float32 with
        ``data.channels``. Raises UserError."""
        ...

    def ids(self, index: int) -> np.ndarray:
        """Its raw ids (H, W) uint8 as they are stored, unknown ids included. Raises UserError.

        For sigmoid outputs also layers (H, W, C) uint8, where classes overlap: 1 where a pixel is
        of a class, 0 where not, 255 where ignored.
        """
        ...


def read_sample(
    dataset: Dataset, index: int, bands: Bands | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 RGB, or of ``bands``, and its train ids (H, W) uint8 with 255 =
    ignore, or the layers (H, W, C) uint8 of `Layers`.

    Raises UserError naming the mask file or, without files, the image: arrays that do not fit
    `Dataset`, sizes that differ, or an unknown id.
    """
    mask_source = sources(dataset, index)[1]
    image_source, image = sources(dataset, index)[0], read_pixels(dataset, index, bands)
    ids = read_ids(dataset, index)
    if image.shape[:2] != ids.shape[:2]:
        raise UserError(
            f"{mask_source}: the mask is {ids.shape[1]}x{ids.shape[0]}, "
            f"its image {image_source} is {image.shape[1]}x{image.shape[0]}"
        )
    return image, _train_ids(dataset, ids, mask_source)


def read_pixels(dataset: Dataset, index: int, bands: Bands | None = None) -> np.ndarray:
    """Only the image; see `read_sample`."""
    channels, kinds = (len(bands), (bands.type,)) if bands else (3, ("uint8",))
    source = sources(dataset, index)[0]
    return stored_array(dataset.image(index), source, "image", (channels,), kinds)


def read_truth(dataset: Dataset, index: int) -> np.ndarray:
    """Only the train ids or the layers of an image; see `read_sample`."""
    return _train_ids(dataset, read_ids(dataset, index), sources(dataset, index)[1])


def _train_ids(dataset: Dataset, ids: np.ndarray, source: object) -> np.ndarray:
    if ids.ndim == 3:
        return ids
    with advised(source):
        return dataset.labels.encode(ids, source)


@contextlib.contextmanager
def advised(source: object) -> Iterator[None]:
    """Add to an error of a mask file who explains it; an object of the user has no such file."""
    try:
        yield
    except UserError as error:
        advice = "; cfnseg doctor explains such masks, and --fix NEW writes right ones"
        raise UserError(f"{error}{advice if isinstance(source, Path) else ''}") from None


def sources(dataset: Dataset, index: int) -> tuple[Path, Path] | tuple[str, str]:
    """Image and mask for messages: their files, or the image's name twice without files."""
    if isinstance(dataset, Subset):
        return sources(dataset.dataset, dataset.indices[index])
    if isinstance(dataset, ExportDataset):
        return dataset.images[index].path, dataset.images[index].files[0]
    return dataset.pairs[index] if isinstance(dataset, FileDataset) else (dataset.names[index],) * 2


def mask_files(dataset: Dataset, index: int) -> Sequence[Path]:
    """The files that an image's mask is read from; none for data without files."""
    if isinstance(dataset, Subset):
        return mask_files(dataset.dataset, dataset.indices[index])
    if isinstance(dataset, ExportDataset):
        return dataset.images[index].files
    return dataset.pairs[index][1:] if isinstance(dataset, FileDataset) else ()


TRAINED_ON = " images trained on"  # what the name of a split ends with, of which images were


def name_of_trained(split: str, seen: int, images: int) -> str:
    """The name of a split of ``images``, of which ``seen`` were trained on."""
    return f"{split}, {seen} of {images}{TRAINED_ON}" if seen else split


def is_trained_on(name: str, split: str = "") -> bool:
    """Is ``name`` from `name_of_trained`, of ``split`` or, without it, of any?"""
    return name.endswith(TRAINED_ON) and name.startswith(f"{split}, " if split else "")


def shared_files(dataset: Dataset, other: Dataset) -> int:
    """The images of ``dataset`` whose file ``other`` has too; 0 for data without files."""
    own, theirs = (
        [sources(data, index)[0] for index in range(len(data.names))] for data in (dataset, other)
    )
    known = {path for path in theirs if isinstance(path, Path)}
    return sum(path in known for path in own)


def read_ids(dataset: Dataset, index: int) -> np.ndarray:
    """The raw ids of an image (H, W) uint8, or the layers (H, W, C) of `Layers`; UserError as
    `read_sample` but for unknown ids."""
    ids, source = dataset.ids(index), sources(dataset, index)[1]
    layered = isinstance(dataset, Layers)
    if not layered and isinstance(source, Path) and source.is_dir():
        raise UserError(
            f"{source} is a folder with a mask for each class: labels that overlap are for models "
            "with sigmoid outputs, --model.output sigmoid"
        )
    return stored_array(ids, source, "mask", (len(dataset.labels),) if layered else ())


def stored_array(
    value: Any,
    source: object,
    what: str,
    channels: tuple[int, ...],
    types: Sequence[str] = ("uint8",),
) -> np.ndarray:
    """``value`` if it is (H, W, *channels) of one of the types, else UserError: a user's own data
    set may err."""
    array = isinstance(value, np.ndarray)
    if (
        array
        and value.dtype.name in types
        and value.ndim == 2 + len(channels)
        and value.shape[2:] == channels
        and value.size
    ):
        return value
    found = f"{value.dtype} of shape {value.shape}" if array else type(value).__name__
    expected = ", ".join(["H", "W", *map(str, channels)])
    raise UserError(
        f"{source}: the {what} is {found}, expected a NumPy array ({expected}) of "
        f"{' or '.join(types)}"
    )


class FileDataset:
    """Pairs of image and mask files.

    Args:
        pairs: (image, mask) paths.
        labels: the map from the masks' raw ids.
        channels: see `cfnseg.config.Data`.
    """

    def __init__(self, pairs: list[tuple[Path, Path]], labels: LabelMap, channels: int = 0) -> None:
        self.pairs, self.channels = pairs, channels
        self.labels = labels
        self.names = short_names([image for image, _ in pairs])
        masks = [mask for _, mask in pairs]
        self.few_bits = few_bits(masks, f"masks in {masks[0].parent}" if masks else "masks")

    def image(self, index: int) -> np.ndarray:
        """See `Dataset.image`."""
        return read_image(self.pairs[index][0], self.channels)

    def ids(self, index: int) -> np.ndarray:
        """See `Dataset.ids`. Raises UserError for a mask with two meanings too."""
        path = self.pairs[index][1]
        if path.is_dir():
            return read_layers(path, self.labels, lambda: self.image(index).shape[:2])
        with advised(path):
            mask = read_stored(path)
        self.labels.demand_one_meaning(mask, path, self.few_bits)
        return mask.ids


class Subset:
    """A view of some images of a data set.

    Args:
        dataset: the full data set.
        indices: of the images in the view.
    """

    def __init__(self, dataset: Dataset, indices: list[int]) -> None:
        self.dataset, self.indices = dataset, indices
        self.labels, self.names = dataset.labels, [dataset.names[i] for i in indices]

    def image(self, index: int) -> np.ndarray:
        """See `Dataset.image`."""
        return self.dataset.image(self.indices[index])

    def ids(self, index: int) -> np.ndarray:
        """See `Dataset.ids`."""
        return self.dataset.ids(self.indices[index])


class Layers(Subset):
    """A view for sigmoid outputs: ``ids`` gives layers (H, W, C) uint8, 1 where a pixel is of a
    class, 0 where not, 255 where ignored.

    Args:
        dataset: gives layers, or raw ids, which `LabelMap.spread` turns into layers.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset, list(range(len(dataset.names))))

    def ids(self, index: int) -> np.ndarray:
        """The layers of image ``index``. Raises UserError."""
        ids, source = self.dataset.ids(index), sources(self, index)[1]
        if not (isinstance(ids, np.ndarray) and ids.ndim == 3):
            return self.labels.spread(stored_array(ids, source, "mask", ()), source)
        if len(found := np.setdiff1d(ids, (0, 1, IGNORE))):
            raise UserError(f"{source}: layers have the values 0, 1 and 255; found {found[0]}")
        return ids


def hold_out(dataset: Dataset, data: Data) -> tuple[Subset, Subset]:
    """Views of the images that are not held out and of those that are, see `held_out`.

    Raises UserError if a view is empty.
    """
    which = held_out(dataset.names, data)
    rest, held = ([i for i, own in enumerate(which) if own == side] for side in (False, True))
    if not held or not rest:
        raise UserError(
            f"{rule(data)} matches {len(held)} of {len(dataset.names)} training images, the first "
            f"of which is {dataset.names[0]}",
            code=2,
        )
    return Subset(dataset, rest), Subset(dataset, held)


def fingerprint(dataset: Dataset, of_images: bool = False) -> str:
    """A digest of names and classes, and of the sizes and times of mask files, or image files, if
    there are any."""
    parts = [repr(dataset.names), json.dumps(dataset.labels.to_dict())]
    every = (
        path
        for index in range(len(dataset.names))
        for path in (sources(dataset, index)[:1] if of_images else mask_files(dataset, index))
    )
    for path in dict.fromkeys(every):  # a file of an export may have all images
        with contextlib.suppress(OSError):  # reading the file will say what is wrong
            if isinstance(path, Path):
                for file in (path, *(sorted(path.iterdir()) if path.is_dir() else ())):
                    status = file.stat()
                    parts.append(f"{status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


USUAL_ROOT = {
    "voc": "data",
    "voc_aug": "data",
    "cityscapes": "data/cityscapes",
    "camvid": "data/camvid",
    "coco": "data/coco",
    "coco_voc": "data/coco",
    "coco_stuff": "data/coco",
    "ade20k": "data",
    "folder": "data/folder",
}
READERS: dict[str, Callable[[Path, str], tuple[list[tuple[Path, Path]], LabelMap]]] = {
    "voc": voc.pairs,
    "voc_aug": voc.pairs_aug,
    "cityscapes": cityscapes.pairs,
    "camvid": camvid.pairs,
    **{
        name: functools.partial(coco.pairs, name=name)
        for name in ("coco", "coco_voc", "coco_stuff")
    },
    "ade20k": ade20k.pairs,
    "folder": folder.pairs,
}


def open_dataset(
    name: str, root: str, split: str, download: bool = False, channels: int = 0
) -> Dataset:
    """One split of a data set by name.

    Args:
        name: one of `READERS` or `EXPORTS`, or shapes.
        root: its folder, of an export perhaps its file; "" = the usual place under data/.
        split: train, val, ... as the data set has them; train+val is the images of both.
        download: first fetch VOC 2012, and SBD for voc_aug.
        channels: bands of the images, read as stored; 0 = 8-bit RGB.

    Raises:
        UserError: unknown name, missing folder, no images, a list that names missing files, two
            splits of which both have an image, or whose classes differ.

    Example:
        >>> import cfnseg
        >>> data = cfnseg.open_dataset("shapes", "", "val")  # the built-in scenes
        >>> len(data.names), data.image(0).shape, data.ids(0).shape, data.labels.names[:2]
        (100, (192, 256, 3), (192, 256), ['sky', 'ground'])
    """
    if name == "shapes":
        return shapes.ShapesDataset(split)
    path = root_of(name, root)
    if download:
        if not name.startswith("voc"):
            raise UserError(
                f"data.download fetches VOC and SBD alone; get {name} with: cfnseg prepare {name}",
                code=2,
            )
        download_voc(path, aug=name == "voc_aug")
    if name in EXPORTS:
        return _open_export(name, path, split.split("+"), channels)
    parts = [READERS[name](path, part) for part in split.split("+")]
    pairs = [pair for some, _ in parts for pair in some]
    labels = parts[0][1]
    if any(other.to_dict() != labels.to_dict() for _, other in parts[1:]):
        raise UserError(f"the splits {split} have different classes", code=2)
    if len(parts) > 1 and len(set(pairs)) < len(pairs):
        twice = next(image for image, mask in pairs if pairs.count((image, mask)) > 1)
        raise UserError(f"more than one of the splits {split} has {twice}", code=2)
    return FileDataset(pairs, labels, channels)


def root_of(name: str, root: str) -> Path:
    """The folder of a data set, see `open_dataset`.

    Raises UserError for an unknown name, or an export without ``root``.
    """
    if name not in READERS and name not in EXPORTS:
        known = ", ".join([*READERS, *EXPORTS, "shapes"])
        raise UserError(f"data.name {name!r} is unknown; there are {known}", code=2)
    if name in EXPORTS and not root:
        raise UserError(
            f"data.name {name} needs --data.root (evaluation: --root): the export's folder or file",
            code=2,
        )
    return Path(root or USUAL_ROOT[name]).expanduser()


def _open_export(name: str, source: Path, splits: list[str], channels: int) -> ExportDataset:
    """Splits of an export, with its notes on stderr."""
    export = read_export(EXPORTS[name], source)
    for text in export.notes:
        note(text)
    if export.divided:
        note(
            f"{source} names no split val: {SHARE:.0%} of the images are val, by a hash of their "
            "names"
        )
    return ExportDataset(export, splits, channels)
