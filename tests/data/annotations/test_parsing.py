"""What the parsers share: numbers, rotation, colours, deep JSON."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnseg.data.annotations.json_text import read_json
from cfnseg.data.annotations.parsing import (
    box,
    color_of,
    ellipse,
    located,
    number,
    turned,
    whole,
)
from cfnseg.data.annotations.regions import Region
from cfnseg.errors import UserError


@pytest.mark.parametrize("value", [None, True, "x", "nan", float("inf"), [1], {}, "1,5"])
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match="number|could not convert"):
        number(value)


def test_numbers():
    assert number("1.5") == 1.5 and number(3) == 3 and whole("3.0") == 3
    with pytest.raises(ValueError, match="no whole number"):
        whole(2.5)
    with pytest.raises(UserError, match=r"^here: not as the format has it"), located("here"):
        number(10**400)


def test_rotation_is_clockwise_with_y_down():
    assert np.allclose(turned(np.array([[3.0, 1.0]]), 90, (1, 1)), [[1, 3]])
    assert np.allclose(turned(box(0, 0, 2, 1), 180, (1, 0.5)), box(0, 0, 2, 1)[[2, 3, 0, 1]])


@settings(max_examples=30, deadline=None)
@given(st.floats(3, 18), st.floats(3, 18), st.floats(0, 360))
def test_an_ellipse_has_its_area(across, down, degrees):
    mask = Region("a", [ellipse(20, 20, across, down, degrees)]).mask((40, 40))
    around = math.pi * (across + down)
    assert abs(mask.sum() - math.pi * across * down) < 0.5 * around


def test_colors():
    assert color_of("#0a10FF") == (10, 16, 255)
    assert [color_of(text) for text in (None, "", "red", "#12", "#11223344")] == [None] * 5


def test_json_nested_too_deep(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * 200_000)
    with pytest.raises(UserError, match=r"a\.json"):
        read_json(path)
