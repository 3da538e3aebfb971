"""Decisions over a split: evenly spread images, sums of the images', none where there is none."""

import numpy as np
import pytest
import torch

from cfnseg.config import Model
from cfnseg.data.dataset import open_dataset
from cfnseg.errors import Stopped
from cfnseg.evaluation.decisions import count_decisions
from cfnseg.inference.explanation import explain
from cfnseg.inference.settings import Inference
from cfnseg.models.build import build_model
from cfnseg.training.stopping import Stopping
from tests.conftest import ENCODER


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = build_model(Model(encoder=ENCODER, encoder_weights=None, width=8, grid=(2, 3)), 8).eval()
    torch.nn.init.normal_(net.pixel.predictors[0][1].weight)
    return net


def test_sums_over_evenly_spread_images(net, folder_data):
    data = open_dataset("folder", str(folder_data), "val")
    counted = count_decisions(net, data, most=3)
    each = [
        explain(net, torch.from_numpy(data.image(i)).permute(2, 0, 1)).by_class(8)
        for i in (0, 2, 4)
    ]
    assert counted.images == 3 and counted.names[-2:] == ["context", "bias"]
    assert (counted.decided == sum(decided for decided, _ in each)).all()
    np.testing.assert_allclose(counted.margins, sum(sums for _, sums in each))
    assert counted.decided.sum() == 3 * 16 * 20
    assert count_decisions(net, data).images == 5


def test_nothing_to_count(net, folder_data):
    data = open_dataset("folder", str(folder_data), "val")
    assert count_decisions(net, data, Inference(flip=True)) is None
    for name in ("fcn", "plain", "dsn"):
        settings = Model(name=name, encoder=ENCODER, encoder_weights=None, width=8)
        assert count_decisions(build_model(settings, 8), data) is None


def test_it_stops(net, folder_data):
    stopping = Stopping()
    stopping.asked = 15
    with pytest.raises(Stopped):
        count_decisions(net, open_dataset("folder", str(folder_data), "val"), stopping=stopping)
