"""The tags of a TIFF: its bands, its georeference, and a mask with the same georeference."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from cfnseg.errors import UserError, first_line

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # what such a file starts with
# pixel scale, tie points, transformation, keys, and the keys' numbers and texts (OGC GeoTIFF 1.1)
GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)
TYPE_NAMES = {1: "uint", 2: "int", 3: "float"}  # of SampleFormat


def tiff_tags(data: bytes) -> ImageFileDirectory_v2 | None:
    """The tags of a TIFF's first picture, whatever its pixels are; None for another file."""
    if not data.startswith(TIFF):
        return None
    try:
        tags = ImageFileDirectory_v2(data[: 16 if 43 in data[2:4] else 8])
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        return tags
    except Exception:  # a parser that is fed garbage raises anything
        return None


def stored_kind(data: bytes) -> tuple[int, str] | None:
    """Bands and type, such as (5, "uint16"), by the tags of a TIFF; None for another file."""
    tags = tiff_tags(data)
    try:
        bits, form = (tags[258][0], tags.get(339, (1,))[0]) if tags else (0, 1)
        return (int(tags.get(277, 1)), f"{TYPE_NAMES[form]}{bits}") if tags else None
    except Exception:  # damaged tags
        return None


def georeference(data: bytes) -> ImageFileDirectory_v2 | None:
    """The tags that place a TIFF on the earth, for `write_placed`; None if it has none."""
    tags, kept = tiff_tags(data), ImageFileDirectory_v2()
    try:
        for tag in GEOREFERENCE if tags else ():
            if tag in tags:
                kept[tag] = tags[tag]
                kept.tagtype[tag] = tags.tagtype[tag]
    except Exception:  # damaged tags
        return None
    return kept if len(kept) else None


def write_placed(
    path: Path, ids: np.ndarray, palette: np.ndarray | None, place: ImageFileDirectory_v2
) -> None:
    """Write raw ids (H, W) uint8 as a palette or gray TIFF with a georeference.

    Args:
        path: the file.
        ids: raw ids.
        palette: (256, 3) uint8 colours by raw id; None = gray.
        place: of `georeference`.

    Raises:
        UserError: tags that cannot be written, as those of a damaged file.
    """
    image = Image.fromarray(ids, mode="L" if palette is None else "P")
    if palette is not None:
        image.putpalette(palette.tobytes())
    try:
        image.save(path, "TIFF", compression="tiff_adobe_deflate", tiffinfo=place)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise UserError(
            f"the image's georeference is damaged and was not written ({first_line(error)})"
        ) from None
