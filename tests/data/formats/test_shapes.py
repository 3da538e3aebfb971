"""The shapes scenes: deterministic, legal masks, no starved class, place decides a class."""

import cv2
import numpy as np
import pytest

from cfnseg.data.formats.shapes import CLASSES, FIRST_SHAPE, GROUND, SKY, VOID, render

SCENES = 50


@pytest.fixture(scope="module")
def scenes():
    return [render(seed) for seed in range(SCENES)]


def test_a_seed_is_a_scene_in_any_order(scenes):
    np.random.seed(1)  # the global generator must not matter
    for seed in (7, 3, 11, 3):
        image, mask = render(seed)
        np.testing.assert_array_equal(image, scenes[seed][0])
        np.testing.assert_array_equal(mask, scenes[seed][1])


def test_seeds_differ(scenes):
    assert len({image.tobytes() for image, _ in scenes}) == SCENES
    assert len({mask.tobytes() for _, mask in scenes}) == SCENES


def test_classes_are_contiguous_distinct_and_without_void():
    ids, names, colours = zip(*CLASSES, strict=True)
    assert ids == tuple(range(len(CLASSES)))
    assert len(set(names)) == len(set(colours)) == len(CLASSES)


def test_masks_hold_only_known_ids_and_every_class_has_its_share(scenes):
    counts = np.bincount(np.concatenate([mask.ravel() for _, mask in scenes]), minlength=256)
    assert set(np.flatnonzero(counts)) == {*range(len(CLASSES)), VOID}
    share = counts / counts.sum()
    assert share[:FIRST_SHAPE].max() < 0.5
    assert share[FIRST_SHAPE : len(CLASSES)].min() > 0.015
    assert share[FIRST_SHAPE : len(CLASSES)].max() < 3 * share[FIRST_SHAPE : len(CLASSES)].min()
    assert 0.03 < share[VOID] < 0.12


def test_sky_lies_above_ground_in_every_column(scenes):
    for _, mask in scenes:
        rows = np.arange(mask.shape[0])[:, None]
        lowest_sky = np.where(mask == SKY, rows, -1).max(0)
        highest_ground = np.where(mask == GROUND, rows, mask.shape[0]).min(0)
        assert (lowest_sky < highest_ground).all()


def test_void_separates_every_object_from_all_else(scenes):
    for _, mask in scenes:
        for raw_id in range(FIRST_SHAPE, len(CLASSES)):
            grown = cv2.dilate(np.uint8(mask == raw_id), np.ones((3, 3), np.uint8)) > 0
            assert set(np.unique(mask[grown])) <= {raw_id, VOID}


def test_the_outline_is_two_to_three_pixels_wide():
    # Away from blobs and crowded places, opening with a 5x5 square leaves nothing of a line.
    kept = total = 0
    for seed in range(20):
        void = np.uint8(render(seed)[1] == VOID)
        kept += int(cv2.morphologyEx(void, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)).sum())
        total += int(void.sum())
        assert cv2.morphologyEx(void, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)).any()
    assert kept < 0.25 * total


def test_brightness_does_not_tell_sky_from_ground(scenes):
    brighter = [image[mask == SKY].mean() > image[mask == GROUND].mean() for image, mask in scenes]
    assert 0.25 < np.mean(brighter) < 0.9


def test_images_have_contrast_and_are_not_clipped(scenes):
    for image, _ in scenes:
        assert image.std() > 10
        assert np.isin(image, (0, 255)).mean() < 0.3


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (32, 200), (201, 155), (480, 640)])
def test_any_size(size):
    shapes_seen = set()
    for seed in range(8):
        image, mask = render(seed, size)
        assert image.shape == (*size, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
        assert mask.shape == size and mask.dtype == np.uint8 and mask.flags.c_contiguous
        shapes_seen |= set(np.unique(mask)) - {SKY, GROUND, VOID}
        assert (mask == VOID).mean() < 0.5
    assert len(shapes_seen) >= 4


@pytest.mark.parametrize("size", [(31, 64), (64, 0)])
def test_a_size_that_is_too_small_is_named(size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}.*at least 32"):
        render(0, size)
