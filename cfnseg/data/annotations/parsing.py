"""What the parsers share: checked values, outlines, notes."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from cfnseg.data.decode import FAULTS, stored_form
from cfnseg.data.files import read_bytes
from cfnseg.errors import UserError, first_line

NO_AREA = {"line", "point", "points", "polyline", "tag"}
CORNERS = 128  # of an ellipse's polygon: its area is 0.04% short


@contextmanager
def located(place: str) -> Iterator[None]:
    """Turn faults of damaged data into a UserError that names ``place``."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{place}: {error} is missing") from None
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise UserError(f"{place}: not as the format has it ({first_line(error)})") from None


def head(path: Path, size: int = 4096) -> str:
    """The first bytes of a file as Latin-1 text without zero bytes; "" for no readable file."""
    try:
        with path.open("rb") as file:
            return file.read(size).replace(b"\0", b"").decode("latin-1")
    except OSError:
        return ""


def only_file(source: Path, pattern: str, fits: Callable[[Path], bool]) -> Path:
    """``source`` if it is a file, else the one file of the folder that ``fits``.

    Raises UserError for none or several.
    """
    if not source.is_dir():
        return source
    found = [p for p in sorted(source.glob(pattern)) if p.is_file() and fits(p)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(p.name for p in found[:5])
    raise UserError(
        f"{source}: {len(found)} annotation files{': ' * bool(found)}{names}; give one file"
    )


def number(value: Any) -> float:
    """A finite number, or the text of one; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no number")
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{value!r} is no finite number")
    return found


def whole(value: Any) -> int:
    """A whole number, or the text of one such as "3" or "3.0"; ValueError otherwise."""
    found = number(value)
    if found != int(found):
        raise ValueError(f"{value!r} is no whole number")
    return int(found)


def points(values: Sequence[Sequence[Any]]) -> np.ndarray:
    """Pairs x, y as (n, 2) float64; ValueError for anything else."""
    pairs = [(number(x), number(y)) for x, y in values]
    return np.array(pairs, np.float64).reshape(-1, 2)


def turned(outline: np.ndarray, degrees: float, about: tuple[float, float]) -> np.ndarray:
    """An outline (n, 2) rotated clockwise, as seen with y down."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return (outline - about) @ np.array([[cosine, sine], [-sine, cosine]]) + about


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The corners (4, 2) of a box."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0) -> np.ndarray:
    """The outline (128, 2) of an ellipse: center, radii, clockwise rotation about the center."""
    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    return turned(np.c_[x + across * np.cos(angle), y + down * np.sin(angle)], degrees, (x, y))


def cropped(mask: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of a mask (H, W) bool that holds its pixels, and the (x, y) of its corner."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return mask[:0, :0], (0, 0)
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return part.copy(), (int(columns[0]), int(rows[0]))


def png_pixels(data: bytes, clear: bool = False) -> np.ndarray:
    """The alpha of a PNG as (h, w) uint8, or its gray values where it has none.

    Args:
        data: the file.
        clear: a colour that is marked as transparent counts as alpha 0.

    Raises ValueError for a damaged PNG.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            alpha = "A" in image.getbands() or (clear and "transparency" in image.info)
            return (
                np.asarray(image.convert("RGBA"))[..., 3]
                if alpha
                else np.asarray(image.convert("L"))
            )
    except FAULTS as error:
        why = "no PNG" if isinstance(error, UnidentifiedImageError) else first_line(error)
        raise ValueError(f"its bitmap is damaged: {why}") from None


def color_of(text: str | None) -> tuple[int, int, int] | None:
    """(r, g, b) of "#rrggbb"; None for other text."""
    digits = (text or "").strip().removeprefix("#")
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        return None
    return red, green, blue


def count_of(count: int, one: str, many: str = "") -> str:
    """A count with its noun: "1 box", "2 boxes"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def left_out(kinds: Counter[str]) -> list[str]:
    """The notes for shapes that are left out, counted by kind."""
    notes = []
    for kind, count in sorted(kinds.items()):
        if kind in NO_AREA:
            noun = count_of(count, kind.removesuffix("s"))
            notes.append(f"{noun} {'has' if count == 1 else 'have'} no area")
        else:
            noun = count_of(count, "shape")
            notes.append(f"{noun} of kind {kind!r} {'is' if count == 1 else 'are'} left out")
    return notes


def without_class(count: int) -> list[str]:
    """The note for regions without a class, empty for none."""
    if not count:
        return []
    return [f"{count_of(count, 'region')} without a class: the pixels are ignored"]


def upright_size(path: Path) -> tuple[int, int]:
    """(H, W) of a photograph as `cfnseg.data.files.read_image` returns it, from its header."""
    try:
        (height, width), turn = stored_form(read_bytes(path))
    except FAULTS as error:
        raise UserError(f"{path}: not a readable image ({first_line(error)})") from None
    return (width, height) if turn in (5, 6, 7, 8) else (height, width)
