"""Mean and standard deviation of each band, counted on the images of a data set."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from cfnseg.data.bands import TYPES, Bands
from cfnseg.data.dataset import Dataset, sources, stored_array
from cfnseg.data.loader import parallel
from cfnseg.errors import UserError
from cfnseg.progress import progress


class Moments(NamedTuple):
    """Of an image or several.

    Attributes:
        type: of the pixels.
        count: (C,) int64 finite values of each band.
        mean: (C,) float64.
        squares: (C,) float64 sums of the squared distances from the mean.
    """

    type: str
    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray


def count_bands(dataset: Dataset, channels: int, workers: int, title: str = "") -> Bands:
    """The `Bands` of a data set, in one pass that holds one image a process.

    Values that are not finite count for nothing; nan is also GDAL's nodata, see `decode_bands`. A
    constant band, whose deviation is under float32's resolution, has the deviation 1. The images'
    own moments are merged in their order (Chan, Golub and LeVeque 1983), so that the result is the
    same for any number of processes.

    Args:
        dataset: the training images.
        channels: C.
        workers: processes that read.
        title: of the progress display; "" = none.

    Raises:
        UserError: an image with other bands or of another type than those before it, or a band
            without a finite value.
    """
    read = functools.partial(image_moments, dataset, channels)
    found = parallel(read, range(len(dataset.names)), workers)
    total = None
    for index, one in enumerate(progress(found, len(dataset.names), title)):
        if total and one.type != total.type:
            raise UserError(
                f"{sources(dataset, index)[0]}: the image is {one.type}, those before it are "
                f"{total.type}; all images of a data set need one type"
            )
        total = merged(total, one) if total else one
    assert total is not None
    if (empty := np.flatnonzero(total.count == 0)).size:
        raise UserError(
            f"band {empty[0] + 1} of {channels} has no finite value in {len(dataset.names)} "
            "training images",
        )
    std = np.sqrt(total.squares / total.count)
    std[std <= 1e-7 * np.abs(total.mean)] = 1
    return Bands(total.type, tuple(total.mean.tolist()), tuple(std.tolist()))


def image_moments(dataset: Dataset, channels: int, index: int) -> Moments:
    """The `Moments` of one image; UserError if it is not (H, W, channels) of a type in TYPES."""
    source = sources(dataset, index)[0]
    image = stored_array(dataset.image(index), source, "image", (channels,), TYPES)
    parts = []
    for band in range(channels):
        values = image[..., band].astype(np.float64)
        if image.dtype == np.float32:
            values = values[np.isfinite(values)]
        mean = values.mean() if values.size else 0.0
        parts.append((values.size, mean, np.square(values - mean).sum()))
    count, means, squares = zip(*parts)
    return Moments(image.dtype.name, np.array(count), np.array(means), np.array(squares))


def merged(a: Moments, b: Moments) -> Moments:
    """The moments of both."""
    count = a.count + b.count
    share = b.count / np.maximum(count, 1)
    gap = b.mean - a.mean
    squares = a.squares + b.squares + gap**2 * a.count * share
    return Moments(a.type, count, a.mean + gap * share, squares)
