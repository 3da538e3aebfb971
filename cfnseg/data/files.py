"""Read images and masks, and find data sets; every error names the file, the fault and a remedy."""

from __future__ import annotations

import codecs
import functools
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from cfnseg.data.bands import TYPES, described
from cfnseg.data.decode import Mask, decode_image, decode_mask, mask_bits
from cfnseg.data.geotiff import stored_kind
from cfnseg.data.stored_bands import decode_bands
from cfnseg.errors import UserError

T = TypeVar("T")
IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def read_image(path: str | Path, channels: int = 0) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB, upright by its EXIF orientation; see `decode_image`.

    Args:
        path: the file.
        channels: n = all bands as stored, (H, W, n) uint8, uint16 or float32; see `decode_bands`.

    Raises:
        UserError: a file that is missing, damaged or no image, or has another number of bands.

    Example:
        >>> import cfnseg
        >>> image = cfnseg.read_image("photo.jpg")
        >>> image.shape, image.dtype.name
        ((192, 256, 3), 'uint8')
    """
    return pixels_of(read_bytes(Path(path)), path, channels)


def pixels_of(data: bytes, path: object, channels: int = 0) -> np.ndarray:
    """`read_image` of a file's bytes; ``path`` is named in errors."""
    if not channels:
        return rgb_image(data, path)
    image = decode_bands(data, path)
    if image.shape[2] != channels:
        found = image.shape[2]
        raise UserError(
            f"{path}: it has {described(found, image.dtype)}, data.channels is {channels}; "
            f"set --data.channels {found}" + ", or 0 for RGB" * (found in (1, 4))
        )
    return image


def rgb_image(data: bytes, source: object, thorough: bool = False) -> np.ndarray:
    """`decode_image`; the error of a TIFF with other pixels names the setting that reads them."""
    try:
        return decode_image(data, source, thorough)
    except UserError as error:
        kind = stored_kind(data)
        if kind is None or kind in ((1, "uint8"), (3, "uint8"), (4, "uint8")):
            raise
        hint = (
            f"a run with --data.channels {kind[0]} reads them" if kind[1] in TYPES else "convert it"
        )
        raise UserError(f"{error}: {described(*kind)}; {hint}") from None


def read_mask(path: str | Path) -> np.ndarray:
    """The stored ids (H, W) uint8 of a mask file or SBD .mat file; see `decode_mask`.

    Raises UserError for a file that is missing, damaged, or holds no ids from 0 to 255.
    """
    return read_stored(path).ids


def read_stored(path: str | Path) -> Mask:
    """As `read_mask`, with the file's bits per gray pixel."""
    path = Path(path)
    return (
        Mask(read_sbd_mask(path), 8)
        if path.suffix == ".mat"
        else decode_mask(read_bytes(path), path)
    )


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file as stored, from its header; UserError if it has none."""
    try:
        with Image.open(path) as opened:
            return opened.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error})") from None


def read_bytes(path: Path) -> bytes:
    """A file's content; UserError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def few_bits(masks: list[Path], what: str) -> bool:
    """Whether every mask has fewer than 8 bits per gray pixel, with a note; False for no masks.

    The stored values are then the ids. Otherwise `LabelMap.demand_one_meaning` checks such masks.

    Args:
        masks: mask files; the first with 8 bits ends the search.
        what: their name in the note.
    """
    few = bool(masks) and all(mask_bits(path) < 8 for path in masks)
    if few:
        note(
            f"the {len(masks)} {what} have fewer than 8 bits a gray pixel; "
            "their stored values are the ids, so white in 1 bit is id 1, not 255"
        )
    return few


def read_sbd_mask(path: Path) -> np.ndarray:
    """The class ids (H, W) uint8 of an SBD ``cls/*.mat`` file; UserError if it is not one."""
    from scipy.io import loadmat

    try:
        return loadmat(path)["GTcls"][0, 0]["Segmentation"].astype(np.uint8)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise UserError(f"{path}: not a readable SBD mask ({error})") from None


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in UTF-8, 16 or 32 with a byte-order mark.

    Raises UserError for a missing file or another encoding, with the line of the first wrong byte.
    """
    data = read_bytes(path)
    marks = (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    )
    encoding = next((name for mark, name in marks if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data:
        raise UserError(
            f"{path}: zero bytes, as UTF-16 without a byte-order mark has them; "
            "save the file as UTF-8"
        )
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        name, byte = encoding.upper().removesuffix("-SIG"), data[error.start]
        raise UserError(
            f"{path}, line {line}: not {name} (byte 0x{byte:02x}); save the file as UTF-8"
        ) from None


def is_hidden(name: str) -> bool:
    """Whether a name belongs to an operating system: ``._x.png``, ``.DS_Store``, ``Thumbs.db``."""
    return name.startswith(".") or name.lower() in (
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "__macosx",
        "@eadir",
    )


def list_files(folder: Path, deep: bool = False) -> list[Path]:
    """The files of a folder except hidden ones, sorted; ``deep`` adds those of its folders.

    Follows links to folders, except links to a folder above. Raises UserError for a folder that
    cannot be read, or a file name that is not UTF-8.
    """
    found: list[Path] = []
    above = {Path(folder): {os.path.realpath(folder)}}  # real paths from the root to each folder
    for name, inner, files in os.walk(folder, onerror=_unreadable, followlinks=True):
        here = Path(name)
        real = {n: os.path.realpath(here / n) for n in inner if deep and not is_hidden(n)}
        inner[:] = [n for n, path in real.items() if path not in above[here]]
        above |= {here / n: {*above[here], real[n]} for n in inner}
        found += [here / n for n in files if not is_hidden(n)]
    for path in found:
        if os.fsencode(path) != str(path).encode(errors="replace"):
            raise UserError(f"{os.fsencode(path)!r}: the file's name is no UTF-8; rename it")
    return sorted(found)


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename}: the folder cannot be read ({error.strerror})") from None


def list_images(folder: Path, deep: bool = False) -> tuple[list[Path], list[Path]]:
    """The files of `list_files` with a suffix of `IMAGE_TYPES` in any case, and the others."""
    files = list_files(folder, deep)
    images = [p for p in files if is_image(p)]
    return images, sorted(set(files) - set(images))


def is_image(path: Path) -> bool:
    """Whether the suffix is one of `IMAGE_TYPES`, in any case."""
    return path.suffix.lower() in IMAGE_TYPES


def name_key(name: str) -> str:
    """A name in Unicode's composed normal form (NFC); programs write different forms."""
    return unicodedata.normalize("NFC", name)


def short_names(paths: list[Path]) -> list[str]:
    """The stems of files; where two are equal, all paths below their common folder, no suffix."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        above = os.path.commonpath([path.parent for path in paths])
        names = [path.relative_to(above).with_suffix("").as_posix() for path in paths]
    return names


def by_key(files: Iterable[Path], folder: Path) -> dict[str, list[Path]]:
    """Files by `name_key` of their path relative to ``folder``, without suffix."""
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(name_key(path.relative_to(folder).with_suffix("").as_posix()), []).append(
            path
        )
    return found


def partners(names: Iterable[str], folder: Path, suffix: str) -> dict[str, Path]:
    """Name -> the file ``<name><suffix>`` of ``folder``; names without a file are left out.

    The case of the suffix and Unicode's normal form do not matter. Raises UserError if two files
    fit one name.
    """
    there = by_key((p for p in list_files(folder, deep=True) if p.suffix.lower() == suffix), folder)
    found = {name: there[key] for name in names if (key := name_key(name)) in there}
    if twice := next((paths for paths in found.values() if len(paths) > 1), None):
        raise UserError(
            f"{folder} has two files of one name, {twice[0].name!a} and {twice[1].name!a}; keep one"
        )
    return {name: paths[0] for name, paths in found.items()}


@functools.cache
def note(text: str) -> None:
    """Print a note on stderr, once a process, in rank 0 only."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {text}", file=sys.stderr, flush=True)


def note_left_out(folder: Path, others: list[Path]) -> None:
    """Note how many files of ``folder`` have no image suffix."""
    if others:
        kinds = ", ".join(
            f"{n} {suffix}"
            for suffix, n in Counter(p.suffix.lower() or p.name for p in others).most_common(5)
        )
        note(
            f"{len(others)} files in {folder} are left out, as they are no images by their suffix "
            f"({kinds}); expected *{' *'.join(IMAGE_TYPES)}"
        )


def existing(path: Path, what: str, remedy: str) -> Path:
    """``path`` if it exists, else UserError with the nearest folder's content and the remedy."""
    if path.exists():
        return path
    parent = next((p for p in path.parents if p.is_dir()), Path("/"))
    raise UserError(f"{what} not found at {path}; {parent} has {nearby(parent)}. {remedy}")


def nearby(folder: Path) -> str:
    """The first names in a folder, for a message."""
    names = (
        sorted(p.name + "/" * p.is_dir() for p in folder.iterdir() if not is_hidden(p.name))
        if folder.is_dir()
        else []
    )
    return ", ".join(names[:8]) or "nothing"


def nonempty(pairs: Iterable[T], folder: Path, pattern: str) -> list[T]:
    """Images or pairs as a list; UserError if empty, with the pattern and the folder's content."""
    if pairs := list(pairs):
        return pairs
    raise UserError(f"0 images matched {folder}/{pattern}; {folder} has {nearby(folder)}")


def paired(
    images: Path, masks: Path, remedy: str = "", deep: bool = False
) -> list[tuple[Path, Path]]:
    """Each image of a folder and its mask ``<name>.png`` in another, sorted by name.

    Files without an image suffix are left out, with a note.

    Args:
        images, masks: the folders.
        remedy: advice for missing masks.
        deep: include deeper folders; a name is then a path relative to the folder.

    Raises:
        UserError: no images, images without a mask, or two images for one mask.
    """
    found, others = list_images(images, deep)
    note_left_out(images, others)
    found = nonempty(found, images, "**/" * deep + f"*[{'|'.join(IMAGE_TYPES)}]")
    names = [p.relative_to(images).with_suffix("").as_posix() for p in found]
    drawn = partners(names, masks, ".png")
    if missing := [p for p, name in zip(found, names) if name not in drawn]:
        first = ", ".join(p.relative_to(images).as_posix() for p in missing[:3])
        raise UserError(
            f"{len(missing)} of {len(found)} images in {images} have no mask "
            f"{masks}/<name>.png, first {first}" + f". {remedy}" * bool(remedy)
        )
    used = Counter(drawn[name] for name in names)  # names may differ only in suffix or Unicode form
    if twice := next((mask for mask, count in used.items() if count > 1), None):
        raise UserError(
            f"{images} has two images for the mask {twice}: "
            "names without their suffix must be unique"
        )
    return [(image, drawn[name]) for image, name in zip(found, names)]
