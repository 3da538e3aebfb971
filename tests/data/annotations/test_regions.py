"""Regions to masks: holes, order, crowds, and an independent rasteriser."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnseg.data.annotations import regions
from cfnseg.data.annotations.regions import AnnotatedImage, Region, draw

SIZE = (40, 50)


def box(x, y, w, h):
    return np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float64)


def of(*regions, ordered=False):
    return AnnotatedImage(Path("a.jpg"), regions, (Path("a.json"),), SIZE, ordered)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(0, 50), st.integers(1, 30), st.integers(1, 30))
def test_a_box_is_its_pixels(x, y, w, h):
    expected = np.zeros(SIZE, bool)
    expected[y : y + h, x : x + w] = True
    assert np.array_equal(Region("a", [box(x, y, w, h)]).mask(SIZE), expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(-9, 55), st.integers(-9, 45), st.integers(1, 30), st.integers(1, 30))
def test_pixels_are_cut_at_the_border(x, y, w, h):
    expected = np.zeros((140, 150), bool)
    expected[50 + y : 50 + y + h, 50 + x : 50 + x + w] = True
    found = Region("a", pixels=np.ones((h, w), bool), corner=(x, y)).mask(SIZE)
    assert np.array_equal(found, expected[50:90, 50:100])


def test_a_polygon_is_opencvs_up_to_its_border():
    angle = np.linspace(0, 2 * np.pi, 9)[:-1]
    star = np.c_[25 + 18 * np.cos(angle), 20 + 15 * np.sin(angle)]
    star[::2] = (star[::2] + np.array([25, 20])) / 2
    found = Region("a", [star]).mask(SIZE)
    other = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(other, [np.rint((star - 0.5) * 256).astype(np.int32)], 1, shift=8)
    inner = cv2.erode(other, np.ones((3, 3)))
    outer = cv2.dilate(other, np.ones((3, 3)))
    assert found[inner > 0].all() and not found[outer == 0].any() and found.sum() > 100


def test_holes_stay_and_degenerate_polygons_are_empty():
    ring = Region("a", [box(5, 5, 20, 20)], [box(10, 10, 5, 5)])
    assert ring.mask(SIZE).sum() == 375 and not ring.mask(SIZE)[12, 12]
    assert not Region("a", [np.array([[1.0, 1], [5, 5]])]).mask(SIZE).any()
    assert not Region("a").mask(SIZE).any()


@pytest.mark.parametrize("flipped", [False, True])
def test_who_is_on_top(flipped):
    large, small = Region("a", [box(0, 0, 30, 30)]), Region("b", [box(10, 10, 5, 5)])
    regions = (small, large) if flipped else (large, small)
    ids = {"a": 1, "b": 2}
    assert draw(of(*regions), SIZE, ids, 0, 255)[12, 12] == 2
    assert draw(of(*regions, ordered=True), SIZE, ids, 0, 255)[12, 12] == (1 if flipped else 2)


def test_ignored_regions_cover_nothing_but_background():
    crowd = Region("a", [box(0, 0, 20, 20)], ignored=True)
    mask = draw(of(Region("a", [box(5, 5, 30, 30)]), crowd), SIZE, {"a": 300}, 0, 255)
    assert mask[2, 2] == 255 and mask[10, 10] == 300 and mask[39, 0] == 0
    assert mask.dtype == np.uint16
    assert set(np.unique(draw(of(Region("x", [box(0, 0, 9, 9)])), SIZE, {"a": 1}, 7, 255))) == {7}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-300, 300), st.floats(-300, 300)), min_size=3, max_size=8, unique=True
    )
)
def test_a_far_polygon_covers_the_same_pixels_as_a_near_one(points):
    polygon = np.array(points)
    whole = Region("a", [polygon]).mask(SIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regions, "FAR", 1.0)
        cut = Region("a", [polygon]).mask(SIZE)
    assert np.mean(whole != cut) < 0.02  # edges are rounded where they are cut


def test_corrupt_coordinates_do_not_kill():
    huge = np.array([[-1e12, -1e12], [1e12, -1e12], [1e12, 1e12], [-1e12, 1e12]])
    assert Region("a", [huge]).mask(SIZE).all()
    assert not Region("a", [huge + 3e12]).mask(SIZE).any()
