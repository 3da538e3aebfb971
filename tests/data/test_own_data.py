"""A user's own object as a data set: it trains, it is scored, and its mistakes are one line."""

import json
from dataclasses import replace

import numpy as np
import pytest

import cfnseg
from cfnseg.config import Data
from cfnseg.data.dataset import Subset, fingerprint, hold_out, read_sample, read_truth
from cfnseg.data.formats import shapes
from cfnseg.data.labels import Label, LabelMap
from cfnseg.errors import UserError
from tests.conftest import changed


class Scenes:
    """The four members that cfnseg asks for, and nothing else."""

    def __init__(self, count, first=0):
        self.first, self.labels = first, LabelMap(Label(*c) for c in shapes.CLASSES)
        self.names = [f"scene {first + i}" for i in range(count)]

    def image(self, index):
        return shapes.render(self.first + index, (64, 80))[0]

    def ids(self, index):
        return shapes.render(self.first + index, (64, 80))[1]


def test_it_trains_and_is_scored(tiny):
    config = replace(
        changed(changed(tiny, "train", max_steps=2), "loss", class_weights="median"), name="own"
    )
    config = changed(changed(config, "data", name="scenes", workers=2), "train", pictures=1)
    run = cfnseg.train(config, data=(Scenes(8), Scenes(3, 100)))
    report = json.loads((run / "report" / "report.json").read_text())
    result = cfnseg.evaluate(cfnseg.load(run / "best.safetensors").model, Scenes(3, 100), workers=0)
    assert report["num_images"] == 3
    assert result.scores.miou == pytest.approx(report["miou"], abs=1e-4)


def test_views():
    data = Scenes(6)
    rest, held = hold_out(data, Data(holdout="scene 3"))
    again = Subset(rest, [4, 0])
    assert (held.names, again.names) == (["scene 3"], ["scene 5", "scene 0"])
    assert np.array_equal(again.image(0), data.image(5)) and np.array_equal(
        read_truth(again, 0), read_truth(data, 5)
    )
    assert len({fingerprint(x) for x in (data, rest, held, again)}) == 4


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        (
            "image",
            np.zeros((64, 80, 3), np.float32),
            r"scene 1: the image is float32 of shape \(64, 80, 3\), "
            r"expected .* \(H, W, 3\) of uint8",
        ),
        ("image", np.zeros((64, 80), np.uint8), r"scene 1: the image is uint8 of shape \(64, 80\)"),
        ("image", None, "scene 1: the image is NoneType"),
        ("ids", np.zeros((64, 80), np.int64), r"scene 1: the mask is int64 .* \(H, W\) of uint8"),
        ("ids", np.zeros(64, np.uint8), r"scene 1: the mask is uint8 of shape \(64,\)"),
        (
            "ids",
            np.zeros((32, 80), np.uint8),
            "scene 1: the mask is 80x32, its image scene 1 is 80x64",
        ),
        ("ids", np.full((64, 80), 99, np.uint8), r"scene 1: unknown label id 99 \(5120 px\)"),
    ],
)
def test_a_mistake_names_the_image(member, value, message):
    data = Scenes(3)
    setattr(data, member, lambda index: value)
    with pytest.raises(UserError, match=message):
        read_sample(data, 1)
    if member == "ids" and "its image" not in message:
        with pytest.raises(UserError, match=message):
            read_truth(data, 1)
