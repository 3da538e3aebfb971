"""What a data set is: names, a label map, and `read` of one image with its train ids."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from cfnseg.data import ade20k, camvid, cityscapes, coco, folder, shapes, voc
from cfnseg.data.decode import Mask
from cfnseg.data.files import few_bits, note, read_pair, read_stored
from cfnseg.data.labels import IGNORE, Label, LabelMap
from cfnseg.errors import UserError


class Dataset(Protocol):
    """One split of a data set.

    Attributes:
        labels: its classes.
        names: a name per image, unique in the split.
    """

    labels: LabelMap
    names: list[str]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image ``index``: (H, W, 3) uint8 RGB, and its train ids (H, W) uint8 with 255 = ignore. Raises UserError."""
        ...

    def read_truth(self, index: int) -> np.ndarray:
        """The train ids alone, as `read` gives them. Raises UserError."""
        ...

    def read_ids(self, index: int) -> np.ndarray:
        """The raw ids (H, W) uint8, unknown ones among them. Raises UserError."""
        ...


class FileDataset:
    """Pairs of image and mask files.

    Args:
        pairs: (image, mask) paths.
        labels: the map from the masks' raw ids.
    """

    def __init__(self, pairs: list[tuple[Path, Path]], labels: LabelMap) -> None:
        self.pairs = pairs
        self.labels = labels
        self.names = [image.stem for image, _ in pairs]
        if len(set(self.names)) < len(self.names):  # the same stem in two folders
            above = os.path.commonpath([image.parent for image, _ in pairs])
            self.names = [image.relative_to(above).with_suffix("").as_posix() for image, _ in pairs]
        self.few_bits = few_bits(mask for _, mask in pairs)
        if self.few_bits:
            note(f"the {len(pairs)} masks in {pairs[0][1].parent} have fewer than 8 bits a gray pixel; their stored values are the ids, "
                 "so white in 1 bit is id 1, not 255")

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Dataset.read`."""
        image, mask = read_pair(*self.pairs[index])
        return image, self.labels.encode(self._ids(mask, index), self.pairs[index][1])

    def read_truth(self, index: int) -> np.ndarray:
        """See `Dataset.read_truth`."""
        return self.labels.encode(self.read_ids(index), self.pairs[index][1])

    def read_ids(self, index: int) -> np.ndarray:
        """See `Dataset.read_ids`."""
        return self._ids(read_stored(self.pairs[index][1]), index)

    def _ids(self, mask: Mask, index: int) -> np.ndarray:
        self.labels.demand_one_meaning(mask, self.pairs[index][1], self.few_bits)
        return mask.ids


class ShapesDataset:
    """Scenes drawn on demand; see `cfnseg.data.shapes`.

    Args:
        split: "train" (800 scenes), "val" (100) or "test" (100); no two splits share a scene.
    """

    sizes: ClassVar = {"train": 800, "val": 100, "test": 100}

    def __init__(self, split: str) -> None:
        if split not in self.sizes:
            raise UserError(f"shapes has no split {split!r}; there are {', '.join(self.sizes)}")
        self.first = 1_000_000 * list(self.sizes).index(split)
        self.labels = LabelMap(Label(*c) for c in shapes.CLASSES)
        self.names = [f"{split}_{i:04d}" for i in range(self.sizes[split])]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Dataset.read`."""
        image, mask = shapes.render(self.first + index)
        return image, self.labels.encode(mask, self.names[index])

    def read_truth(self, index: int) -> np.ndarray:
        """See `Dataset.read_truth`."""
        return self.read(index)[1]

    def read_ids(self, index: int) -> np.ndarray:
        """See `Dataset.read_ids`."""
        return shapes.render(self.first + index)[1]


class Subset:
    """Some images of a data set.

    Args:
        dataset: the whole.
        indices: which of its images.
    """

    def __init__(self, dataset: Dataset, indices: list[int]) -> None:
        self.dataset, self.indices = dataset, indices
        self.labels, self.names = dataset.labels, [dataset.names[i] for i in indices]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Dataset.read`."""
        return self.dataset.read(self.indices[index])

    def read_truth(self, index: int) -> np.ndarray:
        """See `Dataset.read_truth`."""
        return self.dataset.read_truth(self.indices[index])

    def read_ids(self, index: int) -> np.ndarray:
        """See `Dataset.read_ids`."""
        return self.dataset.read_ids(self.indices[index])


def hold_out(dataset: Dataset, prefix: str) -> tuple[Subset, Subset]:
    """The images whose names do not start with ``prefix``, and those that do; UserError if either part is empty."""
    held = [i for i, name in enumerate(dataset.names) if name.startswith(prefix)]
    rest = sorted(set(range(len(dataset.names))) - set(held))
    if not held or not rest:
        raise UserError(f"data.holdout {prefix!r} matches {len(held)} of {len(dataset.names)} training images, the first of "
                        f"which is {dataset.names[0]}", code=2)
    return Subset(dataset, rest), Subset(dataset, held)


def fingerprint(dataset: Dataset) -> str:
    """A digest of the images' names, the classes, and size and time of the mask files where there are some."""
    if isinstance(dataset, Subset):
        return hashlib.sha256(f"{fingerprint(dataset.dataset)} {dataset.indices}".encode()).hexdigest()
    parts = [repr(dataset.names), json.dumps(dataset.labels.to_dict())]
    if isinstance(dataset, FileDataset):
        for _, mask in dataset.pairs:
            with contextlib.suppress(OSError):  # reading it will say what is wrong
                status = mask.stat()
                parts.append(f"{status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


USUAL_ROOT = {"voc": "data", "voc_aug": "data", "cityscapes": "data/cityscapes", "camvid": "data/camvid", "coco": "data/coco",
              "coco_voc": "data/coco", "coco_stuff": "data/coco", "ade20k": "data", "folder": "data/folder"}
READERS = {"voc": voc.pairs, "voc_aug": voc.pairs_aug, "cityscapes": cityscapes.pairs, "camvid": camvid.pairs,
           **{name: functools.partial(coco.pairs, name=name) for name in ("coco", "coco_voc", "coco_stuff")},
           "ade20k": ade20k.pairs, "folder": folder.pairs}


def open_dataset(name: str, root: str, split: str, download: bool = False) -> Dataset:
    """One split of a data set by name.

    Args:
        name: one of `READERS`, or shapes.
        root: its folder; "" = the usual place under data/.
        split: train, val, ... as the data set has them.
        download: fetch VOC 2012 (and SBD for voc_aug) first.

    Raises:
        UserError: unknown name, missing folder, no images, a list that names missing files.
    """
    if name == "shapes":
        return ShapesDataset(split)
    if name not in READERS:
        raise UserError(f"data.name {name!r} is unknown; there are {', '.join([*READERS, 'shapes'])}", code=2)
    path = Path(root or USUAL_ROOT[name]).expanduser()
    if download:
        if not name.startswith("voc"):
            raise UserError(f"data.download fetches VOC and SBD alone; get {name} with: python tools/prepare_data.py {name}", code=2)
        voc.download(path, aug=name == "voc_aug")
    return FileDataset(*READERS[name](path, split))


__all__ = ["IGNORE", "Dataset", "FileDataset", "ShapesDataset", "Subset", "hold_out", "open_dataset"]
