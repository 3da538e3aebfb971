"""Bands from the file to a training sample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfnseg.config import Data
from cfnseg.data.band_statistics import count_bands
from cfnseg.data.bands import Bands
from cfnseg.data.dataset import open_dataset, read_sample
from cfnseg.data.transforms import BandJitter, TrainTransform
from cfnseg.errors import UserError
from tests.data.band_files import Arrays, noise, write_data

KINDS = ("uint8", "uint16", "float32")


@given(bands=st.integers(1, 6), kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
def test_mean_and_deviation_are_numpys_over_all_pixels(bands, kind, seed):
    images = [noise((8 + i, 9, bands), kind, seed + i) for i in range(4)]
    found = count_bands(Arrays(images), bands, 0)
    flat = np.concatenate([x.reshape(-1, bands) for x in images]).astype(np.float64)
    assert found.type == kind
    np.testing.assert_allclose(found.mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, flat.std(0), rtol=1e-12)


def test_values_that_are_not_finite_do_not_count():
    images = [noise((8, 9, 2), "float32", i) for i in range(3)]
    images[0][..., 0] = np.nan
    images[1][2, 3] = np.inf
    found = count_bands(Arrays(images), 2, 0)
    flat = np.stack(images).astype(np.float64)
    flat[~np.isfinite(flat)] = np.nan
    np.testing.assert_allclose(found.mean, np.nanmean(flat, (0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std, np.nanstd(flat, (0, 1, 2)), rtol=1e-12)


def test_a_constant_band_has_deviation_one():
    images = [np.full((50, 50, 1), 0.1, np.float32)] * 3
    assert count_bands(Arrays(images), 1, 0).std == (1.0,)


def test_other_processes_count_the_same(tmp_path):
    data = open_dataset("folder", str(write_data(tmp_path, 5)), "train", channels=5)
    assert count_bands(data, 5, 0) == count_bands(data, 5, 2)


def test_what_cannot_be_counted_is_one_line():
    mixed = Arrays([noise((8, 9, 2), "uint8"), noise((8, 9, 2), "uint16")])
    with pytest.raises(UserError, match="i1: the image is uint16, those before it are uint8"):
        count_bands(mixed, 2, 0)
    with pytest.raises(UserError, match=r"i0: .* expected a NumPy array \(H, W, 3\) of uint8 or"):
        count_bands(mixed, 3, 0)
    empty = Arrays([np.full((4, 4, 2), np.nan, np.float32)])
    with pytest.raises(UserError, match="band 1 of 2 has no finite value"):
        count_bands(empty, 2, 0)


def test_a_sample_of_another_type_is_refused():
    bands = Bands("uint16", (5.0, 6.0), (1.0, 1.0))
    with pytest.raises(UserError, match=r"i0: the image is uint8 of shape .* of uint16"):
        read_sample(Arrays([noise((8, 9, 2), "uint8")]), 0, bands)


@given(
    bands=st.integers(1, 9),
    kind=st.sampled_from(KINDS),
    height=st.integers(3, 90),
    width=st.integers(3, 90),
    seed=st.integers(0, 999),
)
def test_a_sample_keeps_type_and_bands(bands, kind, height, width, seed):
    """Every band is cut, resized and mirrored like a band on its own, and padded with its mean."""
    image = noise((height, width, bands), kind, seed)
    mask = (image[..., 0] > image[..., 0].mean()).astype(np.uint8)
    means = tuple(float(m) for m in image.reshape(-1, bands).mean(0, np.float64))
    settings = Data(crop=(32, 48), photometric=0.0, scale=(0.4, 2.5))
    whole = TrainTransform(settings, bands=Bands(kind, means, (1.0,) * bands))
    sample = whole(image, mask, "x", seed)
    assert sample.image.shape == (bands, 32, 48) and sample.image.dtype == kind
    for k in range(bands):
        one = TrainTransform(settings, bands=Bands(kind, means[k : k + 1], (1.0,)))
        alone = one(image[..., k : k + 1], mask, "x", seed)
        near = {"atol": 1e-3} if kind == "float32" else {"atol": 1}  # OpenCV rounds either way
        np.testing.assert_allclose(
            alone.image[0].astype(float), sample.image[k].astype(float), rtol=1e-5, **near
        )
        np.testing.assert_array_equal(alone.mask, sample.mask)
        outside = sample.mask == 255
        assert (sample.image[k][outside] == whole.fill[k, 0, 0]).all()


def test_a_sample_of_rgb_is_what_it_was():
    """data.channels 3 cuts the pixels of the default."""
    image = noise((70, 60, 3), "uint8")
    mask = (image[..., 0] > 99).astype(np.uint8)
    settings = Data(crop=(32, 48), photometric=0.0)
    bands = Bands("uint8", (124.0, 116.0, 104.0), (1.0,) * 3)
    for seed in range(9):
        a = TrainTransform(settings)(image, mask, "x", seed)
        b = TrainTransform(settings, bands=bands)(image, mask, "x", seed)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.mask, b.mask)


def test_nan_becomes_the_mean_before_the_resize():
    image = np.full((40, 40, 2), 7, np.float32)
    image[5:9, 5:9, 1] = np.nan
    bands = Bands("float32", (7.0, 7.0), (1.0, 1.0))
    settings = Data(crop=(64, 64), scale=(1.4, 1.4), photometric=0.0)
    sample = TrainTransform(settings, bands=bands)(image, np.zeros((40, 40), np.uint8), "x", 1)
    np.testing.assert_allclose(sample.image, 7, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_jitter_moves_all_bands_alike(kind):
    image = noise((30, 30, 5), kind)
    flat = image.reshape(-1, 5).astype(np.float64)
    bands = Bands(kind, tuple(flat.mean(0)), tuple(flat.std(0)))
    rng, moved = np.random.default_rng(0), 0
    for _ in range(20):
        result = BandJitter(0.5, bands)(image, rng)
        assert result.dtype == kind and result.shape == image.shape
        moved += not np.array_equal(result, image)
        if kind == "float32":
            z = (result.reshape(-1, 5) - flat.mean(0)) / flat.std(0)
            np.testing.assert_allclose(z.std(0), z.std(0)[0], rtol=1e-4)
            np.testing.assert_allclose(z.mean(0), z.mean(0)[0], atol=1e-4)
    assert 10 <= moved <= 19
    assert BandJitter(0.0, bands)(image, rng) is image


def test_an_own_augmentation_gets_the_bands(tmp_path):
    (tmp_path / "own.py").write_text(
        "def turned(image, mask, rng):\n    return image[::-1, :, :], mask[::-1]\n"
        "def cut(image, mask, rng):\n    return image[..., :3], mask\n"
    )
    image, bands = noise((40, 40, 5), "uint16"), Bands("uint16", (1.0,) * 5, (1.0,) * 5)
    mask = np.zeros((40, 40), np.uint8)
    settings = {"crop": (40, 40), "scale": (1.0, 1.0), "photometric": 0.0, "flip": False}
    turned = Data(augment=f"{tmp_path}/own.py:turned", **settings)
    sample = TrainTransform(turned, bands=bands)(image, mask, "x", 0)
    np.testing.assert_array_equal(sample.image, image[::-1].transpose(2, 0, 1))
    cut = Data(augment=f"{tmp_path}/own.py:cut", **settings)
    with pytest.raises(UserError, match=r"expected \(image \(H, W, 5\) uint16"):
        TrainTransform(cut, bands=bands)(image, mask, "x", 0)
