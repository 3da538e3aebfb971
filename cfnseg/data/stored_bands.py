"""Decode an image file with all its bands, as they are stored."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, ImageOps

from cfnseg.data.bands import TYPES
from cfnseg.data.decode import (
    FAULTS,
    PNG,
    decode_image,
    decoded,
    demand_size,
    png_chunks,
    reason_of,
    stored_form,
)
from cfnseg.data.geotiff import TIFF
from cfnseg.errors import UserError, first_line, lacking

MOST_BYTES = 1 << 36  # of an image in memory
NODATA = 42113  # GDAL's tag: the value of pixels without one
# OpenCV's flags by a PNG's colour type; others have an alpha channel
FLAGS = {
    0: cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH,
    2: cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH,
    3: cv2.IMREAD_COLOR,
}


def decode_bands(data: bytes, source: object) -> np.ndarray:
    """The bytes of an image file as (H, W, C) uint8, uint16 or float32.

    Gray has one band, an alpha channel is a band, and 16 bits stay 16 bits. A TIFF has its own
    number of bands. int8, int16 and float16 become float32, which holds each of their values. In
    bands of these types and float32, GDAL's nodata value becomes nan. Palettes become RGB.

    Args:
        data: the file.
        source: its name, for errors.

    Raises:
        UserError: a file that is damaged or not an image, has several pictures, or another type;
            a TIFF without the packages that read it.
    """
    try:
        if data.startswith(PNG):
            image = _png_bands(data)
        elif data.startswith(TIFF):
            image = _tiff_bands(data)
        else:
            image = _other_bands(data, source)
    except UserError:
        raise
    except (*FAULTS, MemoryError) as error:
        raise UserError(f"{source}: not a readable image ({reason_of(error, data)})") from None
    except Exception as error:  # a parser that is fed garbage raises anything
        raise UserError(f"{source}: not a readable image ({first_line(error)})") from None
    return np.ascontiguousarray(image)


def _png_bands(data: bytes) -> np.ndarray:
    (width, height, _, color, _), chunks = png_chunks(data)
    if b"acTL" in chunks:
        raise ValueError("an animation, expected one picture")
    alpha = color not in FLAGS
    if alpha and stored_form(data)[1] != 1:  # OpenCV turns images without alpha alone
        raise ValueError("an EXIF orientation with an alpha channel; save it upright")
    image = decoded(data, FLAGS.get(color, cv2.IMREAD_UNCHANGED), (width, height))
    if image.ndim == 2:
        return image[..., None]
    image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    return image[..., [0, 3]] if color == 4 else image


def _other_bands(data: bytes, source: object) -> np.ndarray:
    image = decode_image(data, source)
    with Image.open(io.BytesIO(data)) as opened:
        if opened.mode == "RGBA":
            return np.array(ImageOps.exif_transpose(opened))
        if opened.mode == "CMYK":
            raise ValueError("CMYK colours; save it as RGB")
        return image[..., :1] if opened.mode in ("1", "L") else image


def _tiff_bands(data: bytes) -> np.ndarray:
    try:
        import tifffile
    except ModuleNotFoundError:
        raise lacking("a TIFF with data.channels", "geo") from None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = [page for page in file.pages if not page.subfiletype & 5]  # copies and masks
        if len(pages) != 1:
            raise ValueError(f"it has {len(pages)} pictures, expected one with all bands")
        page = pages[0]
        demand_size(page.imagewidth, page.imagelength)
        if page.axes not in ("YX", "YXS", "SYX") or page.photometric == 3:
            what = "a palette" if page.photometric == 3 else f"axes {page.axes}"
            raise ValueError(f"{what}, expected rows, columns and bands")
        if page.tags.valueof(274, 1) != 1:
            raise ValueError("an orientation tag; save it upright")
        if page.dtype is None or page.dtype.kind not in "uif" or page.nbytes > MOST_BYTES:
            raise ValueError(f"{page.nbytes:,} bytes of {page.dtype}, expected {', '.join(TYPES)}")
        ends = (at + n for at, n in zip(page.dataoffsets, page.databytecounts))
        if max(ends, default=0) > len(data):
            raise ValueError("the file is cut off")
        values, nodata = page.asarray(), page.tags.valueof(NODATA)
    if page.axes == "SYX":
        values = np.moveaxis(values, 0, 2)
    values = values.reshape(*values.shape[:2], -1)
    if values.dtype.name in ("int8", "int16", "float16"):
        values = values.astype(np.float32)
    if values.dtype.name not in TYPES:
        raise ValueError(
            f"pixels of type {values.dtype}, expected {', '.join(TYPES)}; "
            "gdal_translate -ot Float32 converts them"
        )
    if values.dtype == np.float32 and nodata is not None:
        values = np.where(values == np.float32(float(nodata)), np.float32("nan"), values)
    return values.astype(values.dtype.newbyteorder("="), copy=False)
