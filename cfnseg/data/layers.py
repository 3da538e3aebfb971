"""Overlapping labels: a folder with one mask file a class, read and written as layers (H, W, C)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from cfnseg.data.files import list_files, name_key, read_stored
from cfnseg.data.labels import IGNORE, LabelMap
from cfnseg.errors import UserError
from cfnseg.storage import write_atomic

VOID = "void"  # the file of the pixels that are ignored for all classes


def layer_names(labels: LabelMap) -> list[str]:
    """The name of each class's mask file, without .png: the class's, with "/" as "_".

    Raises UserError if two classes have the same, or one has the void file's.
    """
    names = [name_key(name).replace("/", "_") for name in labels.names]
    if twice := next((n for i, n in enumerate(names) if n in (VOID, *names[:i])), None):
        raise UserError(
            f"the class {twice!r} cannot have a mask file {twice}.png of its own; rename it"
        )
    return names


def read_layers(folder: Path, labels: LabelMap, size: Callable[[], tuple[int, ...]]) -> np.ndarray:
    """The layers (H, W, C) uint8 of an image: 1 of the class, 0 not, 255 ignored.

    Args:
        folder: has ``<class>.png`` of 0 and 255, or 0 and 1; a class without a file is nowhere in
            the image. Other pixels than 0 in ``void.png`` are ignored for all classes.
        labels: the classes.
        size: gives (H, W) where there is no file at all.

    Raises:
        UserError: a file of no class, values between, or sizes that differ.
    """
    names = layer_names(labels)
    files = {name_key(path.stem): path for path in list_files(folder) if _is_png(path)}
    if unknown := sorted(files.keys() - {*names, VOID}):
        raise UserError(
            f"{files[unknown[0]]}: classes.txt has no class {unknown[0]!r}; there are "
            f"{', '.join(labels.names[:8])}{' ...' * (len(labels) > 8)}, and {VOID} for what is "
            "ignored"
        )
    masks = {name: _binary(path) for name, path in files.items()}
    shapes = {mask.shape for mask in masks.values()}
    if len(shapes) > 1:
        found = ", ".join(f"{n} {m.shape[1]}x{m.shape[0]}" for n, m in sorted(masks.items())[:4])
        raise UserError(f"{folder}: the masks of one image differ in size: {found}")
    layers = np.zeros((*(shapes.pop() if shapes else size()), len(names)), np.uint8)
    for c, name in enumerate(names):
        if name in masks:
            layers[..., c] = masks[name]
    if VOID in masks:
        layers[masks[VOID]] = IGNORE
    return layers


def _is_png(path: Path) -> bool:
    if path.suffix.lower() != ".png":
        raise UserError(
            f"{path}: expected <class>.png, a lossless mask of 0 and 255 for each class"
        )
    return True


def _binary(path: Path) -> np.ndarray:
    """A mask file as (H, W) bool; UserError unless it has one value besides 0, which is 1 or white.

    A file of few bits a pixel needs no other rule: its white is 1 as stored and 255 as shown, and
    both mean the class.
    """
    mask = read_stored(path)
    used = np.unique(mask.ids)
    white = 255 if mask.bits == 8 else (1 << mask.bits) - 1
    if (found := set(used.tolist()) - {0}) and found not in ({1}, {white}):
        raise UserError(
            f"{path}: the mask of one class has the values {', '.join(map(str, used[:6]))}"
            f"{' ...' * (len(used) > 6)}; expected 0 and 255, or 0 and 1"
        )
    return mask.ids > 0


def write_layers(folder: Path, masks: np.ndarray, labels: LabelMap) -> None:
    """Write (C, H, W) bool masks as ``<class>.png`` of 0 and 255, a file for each class."""
    for name, mask in zip(layer_names(labels), masks):
        coded = cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()
        write_atomic(
            folder / f"{name}.png", lambda temporary, coded=coded: temporary.write_bytes(coded)
        )
