"""What a validation tells: classes without pixels, and masks that are ignored whole."""

from dataclasses import replace

import numpy as np
import pytest

import cfnseg
from cfnseg.errors import UserError
from cfnseg.training.validation import without_pixels


def test_classes_without_pixels():
    confusion = np.array([[5, 0, 1], [2, 0, 0], [0, 0, 0]])  # true by predicted
    names = ["sky", "car", "sign"]
    assert without_pixels(confusion, names, first=False) == ["never predicted: car"]
    assert without_pixels(confusion, names, first=True) == [
        "never predicted: car",
        "not in the validation masks: sign",
    ]
    assert not without_pixels(np.eye(3), names, first=True)
    many = np.zeros((12, 12))
    many[:, 0] = 1
    (line,) = without_pixels(many, [f"c{i}" for i in range(12)], first=True)
    assert line == "never predicted: c1, c2, c3, c4, c5, c6, c7, c8 and 3 more"


class Ignored:
    """Scenes whose masks are ignored whole."""

    labels = cfnseg.LabelMap([cfnseg.Label(0, "a", (0, 0, 0)), cfnseg.Label(1, "b", (9, 9, 9))])
    names = tuple(str(i) for i in range(4))

    def image(self, index):
        return np.full((64, 80, 3), 40 * index, np.uint8)

    def ids(self, index):
        return np.full((64, 80), 255, np.uint8)


def test_masks_that_are_ignored_whole_are_one_line(tiny):
    config = replace(tiny, train=replace(tiny.train, batch=2, epochs=1))
    with pytest.raises(UserError, match=r"validation counts no pixel: the 4 masks are ignored"):
        cfnseg.train(config, data=(Ignored(), Ignored()))
