"""`LabelMap`: the only place that maps raw ids to train ids and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cfnseg.data.decode import Mask
from cfnseg.data.files import name_key, note, read_text
from cfnseg.errors import UserError

IGNORE = 255  # the train id of pixels that are not counted


@dataclass(frozen=True)
class Label:
    """One class: its raw id in mask files (0..255), its name and its colour (r, g, b in 0..255).

    Example:
        >>> import cfnseg
        >>> cfnseg.Label(7, "road", (128, 64, 128)).name
        'road'
    """

    id: int
    name: str
    color: tuple[int, int, int]


class LabelMap:
    """Raw id -> train id or ignore, and back.

    Train ids are 0..C-1 in the order of ``labels``.

    Args:
        labels: the classes that are trained and scored.
        ignore: raw ids that a mask may have and that are not counted. Any other id is an error.
        void: the raw id written for an ignored pixel.

    Raises:
        ValueError: an id twice or outside 0..255, or more than 255 classes.

    Example:
        >>> import cfnseg, numpy
        >>> labels = cfnseg.LabelMap([cfnseg.Label(7, "road", (128, 64, 128))])
        >>> labels.encode(numpy.array([[7, 255]], numpy.uint8)).tolist()  # train ids
        [[0, 255]]
    """

    def __init__(
        self, labels: Iterable[Label], ignore: Iterable[int] = (255,), void: int = 255
    ) -> None:
        self.labels = tuple(labels)
        self.ignore = tuple(sorted(set(ignore)))
        self.void = void
        ids = [label.id for label in self.labels]
        if (
            len(set(ids)) != len(ids)
            or len(ids) > 255
            or set(ids) & set(self.ignore)
            or not all(0 <= i <= 255 for i in (*ids, *self.ignore, void))
        ):
            raise ValueError(
                "labels: up to 255 ids, distinct, in 0..255 and not ignored, expected; "
                f"got {ids}, ignored {self.ignore}"
            )
        self._encode = np.full(256, -1, np.int16)
        self._encode[list(self.ignore)] = IGNORE
        self._encode[ids] = np.arange(len(ids))
        self._decode = np.full(256, void, np.uint8)
        self._decode[: len(ids)] = ids

    def __len__(self) -> int:
        return len(self.labels)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelMap) and self.to_dict() == other.to_dict()

    @property
    def names(self) -> list[str]:
        """Class names in train-id order."""
        return [label.name for label in self.labels]

    def encode(self, mask: np.ndarray, source: object = "mask") -> np.ndarray:
        """Raw ids (H, W) uint8 to train ids (H, W) uint8, `IGNORE` where ignored.

        Raises UserError naming ``source``, each unknown id and its pixel count.
        """
        train = cv2.LUT(mask, self._encode)  # a quarter of the time of indexing
        if (train < 0).any():
            ids, counts = np.unique(mask[train < 0], return_counts=True)
            found = ", ".join(f"id {i} ({n} px)" for i, n in zip(ids[:8], counts[:8]))
            raise UserError(
                f"{source}: unknown label {found}; the {len(self)} classes have ids "
                f"{[label.id for label in self.labels]} and {list(self.ignore)} is ignored"
            )
        return train.astype(np.uint8)

    def spread(self, mask: np.ndarray, source: object = "mask") -> np.ndarray:
        """Raw ids (H, W) uint8 to layers (H, W, C) uint8 for sigmoid outputs: 1 where a pixel is of
        a class, 0 where not, `IGNORE` where ignored.

        Id 0 without a line in classes.txt is none of the classes. Raises UserError as `encode`.
        """
        outside = (mask == 0) & (self._encode[0] < 0)
        train = self.encode(np.where(outside, self.labels[0].id, mask).astype(np.uint8), source)
        layers = (train[..., None] == np.arange(len(self))).astype(np.uint8)
        layers[train == IGNORE] = IGNORE
        layers[outside] = 0
        return layers

    def demand_one_meaning(self, mask: Mask, source: object, alone: bool) -> None:
        """Refuse a gray mask of 1, 2 or 4 bits whose values may stand for other ids.

        Its stored values are the ids. But a program that shrinks an 8-bit mask of 0 and 255 writes
        1 bit, because white stays white by the PNG standard. So both meanings are possible where
        stored values and their 8-bit values are known ids and differ.

        Args:
            mask: stored ids, and bits per pixel.
            source: the file, for the error.
            alone: no mask of the folder has 8 bits. A program that shrinks masks would have left
                some, so the stored values are the ids.

        Raises:
            UserError: a mask with two meanings.
        """
        if mask.bits == 8 or not mask.ids.size:
            return
        # 0 is 0 in both; sigmoid outputs may have no class for it
        used, factor = np.unique(mask.ids[mask.ids > 0]), 255 // ((1 << mask.bits) - 1)
        stored, stretched = (
            (self._encode[used] >= 0).all(),
            (self._encode[used * factor] >= 0).all(),
        )
        if stretched and used.size and not (stored and alone):
            others = "" if alone else ", others have 8"
            bits = f"{mask.bits} bit{'s' * (mask.bits > 1)} a gray pixel{others}"
            raise UserError(
                f"{source}: the mask has {bits}: its value {used[-1]} may be id {used[-1]}, "
                f"or {used[-1] * factor} saved in less space; save all masks with 8 bits a pixel"
            )

    def encode_counts(self, pairs: np.ndarray) -> np.ndarray | None:
        """Counts by two raw ids (256, 256) -> counts by train ids (C, C + 1); None for unknown ids.

        The last column counts the second mask's ignored ids.
        """
        known, classes = [*(label.id for label in self.labels), *self.ignore], len(self)
        found = pairs[np.ix_(known, known)]
        if found.sum() != pairs.sum():
            return None
        return np.column_stack([found[:classes, :classes], found[:classes, classes:].sum(1)])

    def decode(self, mask: np.ndarray) -> np.ndarray:
        """Train ids (H, W) uint8 to raw ids; inverts `encode` except ignored pixels (``void``)."""
        return self._decode[mask]

    def palette(self) -> np.ndarray:
        """(256, 3) uint8 colours by raw id; white for ids without a class."""
        colors = np.full((256, 3), 255, np.uint8)
        for label in self.labels:
            colors[label.id] = label.color
        return colors

    def colorize(self, mask: np.ndarray) -> np.ndarray:
        """Train ids (H, W) to colours (H, W, 3) uint8; ignored is white."""
        return self.palette()[self.decode(mask)]

    def write(self, path: str | Path, mask: np.ndarray) -> None:
        """Write train ids (H, W) as an 8-bit palette PNG of raw ids."""
        image = Image.fromarray(self.decode(mask), mode="P")
        image.putpalette(self.palette().tobytes())
        image.save(path, format="PNG")

    def to_dict(self) -> dict:
        """Plain data for a file's header; `from_dict` is the inverse."""
        labels = [[x.id, x.name, list(x.color)] for x in self.labels]
        return {"labels": labels, "ignore": list(self.ignore), "void": self.void}

    @classmethod
    def from_dict(cls, data: dict) -> LabelMap:
        """The label map that `to_dict` described."""
        return cls(
            [Label(int(i), str(n), tuple(c)) for i, n, c in data["labels"]],
            data["ignore"],
            data["void"],
        )


class ClassNames:
    """The classes of a classification data set, in the order of their ids.

    Args:
        names: distinct.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)

    def __len__(self) -> int:
        return len(self.names)

    def to_dict(self) -> dict:
        """Plain data for a file's header; `from_dict` is the inverse."""
        return {"names": self.names}

    @classmethod
    def from_dict(cls, data: dict) -> ClassNames:
        """The class names that `to_dict` described."""
        return cls(str(n) for n in data["names"])


def read_classes(path: str | Path) -> LabelMap:
    """The label map of a ``classes.txt``: one ``id name r g b`` per line; ``#`` starts a comment.

    255 is ignored unless a class has it; a line named ``void`` adds an ignored id. Any other id in
    a mask is an error. For the encoding see `read_text`. Raises UserError with the first wrong
    line, or one that repeats a name.
    """
    return parse_classes(read_text(Path(path)), path)


def parse_classes(text: str, path: str | Path) -> LabelMap:
    """`read_classes` of a text; ``path`` is named in errors."""
    labels: list[Label] = []
    ignore = {255}
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split("#")[0].split()
        if not fields:
            continue
        numbers = [
            int(f)
            for f in (fields[0], *fields[2:])
            if f.isascii() and f.isdigit() and int(f) <= 255
        ]
        if len(fields) != 5 or len(numbers) != 4 or not fields[1].isprintable():
            raise UserError(
                f"{path}, line {number}: expected `id name r g b` with numbers in 0..255, "
                f"got {line!r}"
            )
        index, red, green, blue = numbers
        label = Label(index, name_key(fields[1]), (red, green, blue))
        if label.name.lower() == "void":
            ignore.add(label.id)
            continue
        for other in labels:
            if other.name == label.name:
                raise UserError(
                    f"{path}, line {number}: the classes {other.id} and {label.id} are both "
                    f"called {label.name}; give each a name of its own"
                )
            if other.color == label.color:
                note(
                    f"{path}, line {number}: {other.name} and {label.name} have the same colour; "
                    "pictures cannot tell them apart"
                )
        labels.append(label)
    if not labels:
        raise UserError(f"{path}: no class in it; expected lines of `id name r g b`")
    try:
        return LabelMap(labels, ignore - {x.id for x in labels})
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
