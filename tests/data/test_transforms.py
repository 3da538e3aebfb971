"""A crop carries its region; a seed is a sample."""

import numpy as np
import pytest

from cfnseg.config import Data
from cfnseg.data.transforms import TrainTransform


def coordinates(height, width):
    """An image whose red and green are each pixel's place, and a mask of its own id everywhere."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.dstack([x * 255 // (width - 1), y * 255 // (height - 1), np.full((height, width), 7)]).astype(np.uint8)
    return image, np.full((height, width), 3, np.uint8)


@pytest.mark.parametrize("crop", [(64, 96), (150, 310)])
def test_region_says_where_the_pixels_came_from(crop):
    transform = TrainTransform(Data(crop=crop, photometric=0.0), fill=(0, 0, 0))
    image, mask = coordinates(120, 200)
    for seed in range(12):
        sample = transform(image, mask, "x", seed)
        x0, y0, x1, y1 = sample.region
        h, w = crop
        inside = sample.mask == 3
        assert inside.any()
        mirrored = sample.image[0][inside].astype(int)
        u = np.broadcast_to(x0 + (x1 - x0) * (np.arange(w) + 0.5) / w, (h, w))[inside]
        v = np.broadcast_to((y0 + (y1 - y0) * (np.arange(h) + 0.5) / h)[:, None], (h, w))[inside]
        flipped = np.corrcoef(u, mirrored)[0, 1] < 0
        place = 1 - u if flipped else u  # the region is of the mirrored image
        assert np.abs(mirrored / 255 - place).max() < 0.02
        assert np.abs(sample.image[1][inside] / 255 - v).max() < 0.02
        assert (sample.mask[~inside] == 255).all()


def test_a_seed_is_a_sample():
    transform = TrainTransform(Data(crop=(32, 48)))
    image, mask = coordinates(100, 120)
    first = transform(image, mask, "x", 5)
    transform(image, mask, "x", 6)
    again = transform(image, mask, "x", 5)
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not np.array_equal(first.image, transform(image, mask, "x", 6).image)
    assert first.image.shape == (3, 32, 48)
    assert first.image.dtype == np.uint8


def test_colour_jitter_leaves_the_mask_alone():
    image, mask = coordinates(64, 64)
    settings = {"crop": (64, 64), "scale": (1.0, 1.0), "flip": False}
    plain = TrainTransform(Data(**settings, photometric=0.0))(image, mask, "x", 1)
    strong = TrainTransform(Data(**settings, photometric=1.0))(image, mask, "x", 1)
    assert np.array_equal(plain.image, image.transpose(2, 0, 1))
    assert plain.region.tolist() == [0, 0, 1, 1]
    assert np.array_equal(plain.mask, strong.mask)
