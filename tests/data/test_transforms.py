"""A crop carries its region; image, mask and region name the same place; a seed is a sample."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cfnseg.config import Data
from cfnseg.data.transforms import ImageTransform, TrainTransform, aimed, draw_span, resize

SIDE = st.integers(1, 250)  # a coordinate fits a byte, and 255 stays for padding
CROP = st.integers(32, 96)
SCALE = st.floats(0.1, 4) | st.floats(0.97, 1.03)


def coordinates(height, width):
    """An image whose red is x and green y, and the masks of x and of y."""
    y, x = np.mgrid[0:height, 0:width].astype(np.uint8)
    return np.dstack([x, y, np.full_like(x, 7)]), x, y


@given(SIDE, SIDE, CROP, CROP, SCALE, st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_image_mask_and_region_name_the_same_place(height, width, h, w, scale, seed):
    """A resized ramp holds its centre's place; a mask's id is the pixel under the centre."""
    data = Data(crop=(h, w), scale=(scale, scale), photometric=0.0, flip=False)
    image, *masks = coordinates(height, width)
    across, down = (TrainTransform(data, fill=(1, 2, 3))(image, mask, "x", seed) for mask in masks)
    assert np.array_equal(across.region, down.region)
    assert np.array_equal(across.image, down.image)
    x0, y0, x1, y1 = across.region.astype(float)
    x = np.broadcast_to((x0 + (x1 - x0) * (np.arange(w) + 0.5) / w) * width, (h, w))
    y = np.broadcast_to(((y0 + (y1 - y0) * (np.arange(h) + 0.5) / h) * height)[:, None], (h, w))
    inside = across.mask != 255
    # the region alone says which pixels are padding
    assert np.array_equal(inside, (x > 0) & (x < width) & (y > 0) & (y < height))
    assert inside.any()
    for sample, place, channel in ((across, x, 0), (down, y, 1)):
        found = sample.image[channel][inside].astype(float)
        # 0.5 by rounding, 0.5 where a border repeats, a pixel centre lies 0.5 from its edge
        assert np.abs(found - (place[inside] - 0.5)).max() <= 1.01
        ids = sample.mask[inside].astype(float)
        assert np.abs(ids + 0.5 - place[inside]).max() <= 0.501  # float32 regions
        assert np.abs(found - ids).max() <= 1
    assert (across.image[:, ~inside] == np.array([[1], [2], [3]])).all()


@given(SIDE, SIDE, CROP, CROP, SCALE, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_mirroring_mirrors_image_mask_and_region(height, width, h, w, scale, seed):
    image, mask, _ = coordinates(height, width)
    plain, other = (
        TrainTransform(Data(crop=(h, w), scale=(scale, scale), photometric=0.0, flip=flip))(
            image, mask, "x", seed
        )
        for flip in (False, True)
    )
    x0, y0, x1, y1 = plain.region
    kept = np.array_equal(plain.image, other.image) and np.array_equal(plain.mask, other.mask)
    mirrored = np.array_equal(plain.image[..., ::-1], other.image) and np.array_equal(
        plain.mask[..., ::-1], other.mask
    )
    assert (kept and np.array_equal(plain.region, other.region)) or (
        mirrored and np.allclose(other.region, [1 - x1, y0, 1 - x0, y1], atol=1e-5)
    )


def weights(length, factor, first, count):
    """Area or bilinear weights (count, length) of the source in resized pixels from ``first``."""
    source = np.arange(length)
    if factor < 1:
        left = (first + np.arange(count)[:, None]) / factor
        shares = np.clip(
            np.minimum(left + 1 / factor, source + 1) - np.maximum(left, source), 0, None
        )
    else:
        centre = np.clip((first + np.arange(count)[:, None] + 0.5) / factor - 0.5, 0, length - 1)
        shares = np.clip(1 - np.abs(centre - source), 0, None)
    return shares / shares.sum(1, keepdims=True)


@given(
    st.integers(40, 120),
    st.integers(40, 120),
    CROP,
    CROP,
    SCALE,
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 9),
)
@settings(max_examples=150, deadline=None)
def test_a_resized_window_is_the_window_of_the_resized_image(
    height, width, h, w, scale, place, seed
):
    """The definition in float64: within 1 of 255, except where a growing window starts inside."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    spans = [draw_span(n, c, scale, place) for n, c in zip((height, width), (h, w))]
    rows, columns = spans
    ours = resize(image[rows.start : rows.stop, columns.start : columns.stop], *spans).astype(float)
    assert ours.shape == (rows.filled, columns.filled, 3)
    down, across = (
        weights(n, s.factor, s.start * s.factor, s.filled) for n, s in zip(image.shape, spans)
    )
    wanted = (down @ (across @ image.astype(float)).transpose(2, 0, 1)).transpose(1, 2, 0)
    skipped = [int(s.factor / 2 + 0.5) if s.start and s.factor > 1 else 0 for s in spans]
    assert np.abs(ours - wanted)[skipped[0] :, skipped[1] :].max() <= 1


def test_windows_and_scales_are_uniform_and_independent():
    """No draw predicts another: scale, both places, mirroring and jitter."""
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    mask = np.zeros((200, 300), np.uint8)
    rows = []
    settings_ = {"crop": (48, 64), "scale": (0.5, 2.0)}
    plain, full = (
        TrainTransform(Data(**settings_, flip=False, photometric=0.0)),
        TrainTransform(Data(**settings_, flip=True)),
    )
    for seed in range(1500):
        a, b = plain(image, mask, "x", seed), full(image, mask, "x", seed)
        x0, y0, x1, y1 = a.region
        mirrored = not np.array_equal(a.region, b.region)
        jittered = not np.array_equal(b.image, a.image[..., ::-1] if mirrored else a.image)
        rows.append(
            (64 / 300 / (x1 - x0), y0 / (1 - (y1 - y0)), x0 / (1 - (x1 - x0)), mirrored, jittered)
        )
    rows = np.array(rows, float)
    for column, (low, high) in zip(rows.T, ((0.5, 2.0), (0, 1), (0, 1))):
        shares = np.quantile((column - low) / (high - low), [0.01, 0.25, 0.5, 0.75, 0.99])
        np.testing.assert_allclose(shares, [0.01, 0.25, 0.5, 0.75, 0.99], atol=0.05)
    np.testing.assert_allclose(rows[:, 3:].mean(0), [0.5, 0.8], atol=0.05)
    assert np.abs(np.corrcoef(rows.T) - np.eye(5)).max() < 0.1


def test_a_seed_is_a_sample():
    transform = TrainTransform(Data(crop=(32, 48)))
    image, mask, _ = coordinates(100, 120)
    first = transform(image, mask, "x", 5)
    transform(image, mask, "x", 6)
    again = transform(image, mask, "x", 5)
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not np.array_equal(first.image, transform(image, mask, "x", 6).image)
    assert first.image.shape == (3, 32, 48)
    assert first.image.dtype == first.mask.dtype == np.uint8
    assert first.image.flags.c_contiguous and first.mask.flags.c_contiguous


def test_colour_jitter_leaves_mask_source_and_padding_alone():
    image, mask, _ = coordinates(64, 64)
    before = image.copy()
    settings_ = {"crop": (64, 80), "scale": (1.0, 1.0), "flip": False}
    plain = TrainTransform(Data(**settings_, photometric=0.0))(image, mask, "x", 1)
    strong = [
        TrainTransform(Data(**settings_, photometric=1.0))(image, mask, "x", seed)
        for seed in range(8)
    ]
    inside = plain.mask != 255
    assert np.array_equal(plain.image[:, inside], image.transpose(2, 0, 1).reshape(3, -1))
    assert any(not np.array_equal(s.image, plain.image) for s in strong)
    for sample in strong:
        padding = sample.mask == 255
        assert np.array_equal(np.unique(sample.image[:, padding], axis=1), [[124], [116], [104]])
        assert np.array_equal(np.sort(sample.mask[~padding]), np.sort(mask.ravel()))
    assert np.array_equal(image, before)


def test_an_image_level_sample_mirrors_whatever_was_cut():
    """Where the crop lies and whether it is mirrored are draws of their own."""
    image, _, _ = coordinates(96, 96)
    transform = ImageTransform(Data(crop=(32, 32), scale=(1.0, 1.0), photometric=0.0), train=True)
    wide = np.concatenate(
        [image, image + 96], 1
    )  # 96 x 192: covered by 32 x 64, of which 32 x 32 are cut
    places, mirrored = [], []
    for seed in range(400):
        red = transform(wide, 0, "x", seed).image[0].astype(int)
        places.append(red.min())
        mirrored.append(red[0, 0] > red[0, -1])
        assert np.array_equal(red, transform(wide, 0, "x", seed).image[0])
    assert abs(np.mean(mirrored) - 0.5) < 0.08
    assert abs(np.corrcoef(places, mirrored)[0, 1]) < 0.15


@given(
    st.integers(1, 300),
    st.integers(8, 120),
    st.floats(0.3, 3),
    st.integers(0, 299),
    st.floats(0, 0.999),
)
@example(9, 8, 0.9375, 0, 0.0)  # a scale that is rounded to 1
def test_an_aimed_crop_contains_its_pixel(length, crop, scale, at, draw):
    at = min(at, length - 1)
    span = draw_span(length, crop, scale, aimed(length, crop, scale, at, draw))
    seen = span.start + (np.arange(span.filled) + 0.5) / span.factor
    # the last source pixel may lie beyond every crop
    assert seen[0] - 0.5 / span.factor <= at + 0.5 <= seen[-1] + 0.5 / span.factor + 1


def test_a_crop_contains_the_class_that_it_is_drawn_for():
    """A class of one pixel in 96 x 128 is in an eighth of plain crops, and in all drawn for it."""
    mask = np.zeros((96, 128), np.uint8)
    mask[:30], mask[50, 100], mask[0, :] = 1, 2, 255
    image = np.zeros((96, 128, 3), np.uint8)
    make = TrainTransform(Data(crop=(32, 32), scale=(1.0, 1.0), photometric=0.0))
    for wanted, low, high in ((-1, 0.05, 0.2), (2, 1.0, 1.0)):
        found = [(make(image, mask, "x", k, wanted).mask == 2).any() for k in range(400)]
        assert low <= np.mean(found) <= high


def test_a_mask_without_classes_has_crops_too():
    settings = Data(crop=(32, 32), photometric=0.0)
    ignored = np.full((40, 50), 255, np.uint8)
    sample = TrainTransform(settings)(np.zeros((40, 50, 3), np.uint8), ignored, "x", 0, wanted=1)
    assert (sample.mask == 255).all()
