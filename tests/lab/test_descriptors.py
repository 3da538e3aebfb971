"""Descriptors are the places of the net's own maps, and the net is left as it was."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cfnseg.lab.descriptors import stage_descriptors, stage_pair
from cfnseg.models.encoder import Encoder
from tests.conftest import ENCODER


class Net(nn.Module):
    """Two stages, dropout that only training shows, and batch norm held in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 5, 3, 2, 1), nn.Conv2d(5, 7, 3, 2, 1)
        self.norm, self.drop = nn.BatchNorm2d(5), nn.Dropout(0.5)
        self.norm.eval()

    def forward(self, images):
        assert images.dtype == torch.uint8
        first = self.drop(self.norm(self.first(images.float() / 255)))
        return [first, self.second(first)]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def pictures(count: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def maps_of(net: nn.Module, images: np.ndarray) -> list[torch.Tensor]:
    with torch.no_grad():
        return net.eval()(torch.tensor(images).permute(0, 3, 1, 2))


def test_places_are_those_of_the_map(net):
    images = pictures(5)
    images.flags.writeable = False  # such as a memory map's
    got = stage_descriptors(net, images, 0, batch=2)
    assert net.training and net.drop.training and not net.norm.training
    assert got.dtype == np.float32 and got.shape == (5, 6 * 8, 5)
    expected = maps_of(net, images)[0]
    np.testing.assert_allclose(got.reshape(5, 6, 8, 5), expected.permute(0, 2, 3, 1), atol=1e-6)
    np.testing.assert_allclose(
        stage_descriptors(net, images, -1, device="cpu"),
        stage_descriptors(net, images, 1, batch=1),
        atol=1e-6,
    )


def test_a_pair_has_the_same_places(net):
    images = pictures(3)
    descriptors, indicators = stage_pair(net, images, 0, batch=2)
    assert descriptors.shape == (3, 48, 5) and indicators.shape == (3, 48, 7)
    np.testing.assert_array_equal(descriptors, stage_descriptors(net, images, 0, batch=2))
    up = F.interpolate(maps_of(net, images)[1], (6, 8), mode="bilinear")
    np.testing.assert_allclose(indicators, up.flatten(2).transpose(1, 2), atol=1e-6)
    np.testing.assert_array_equal(stage_pair(net, images, -2, batch=2)[1], indicators)
    for last in (1, -1):
        with pytest.raises(ValueError, match="the last of 2 stages"):
            stage_pair(net, images, last)


def test_no_descriptors_of_an_encoders_padding():
    encoder = Encoder(ENCODER, (4, 8, 32)).eval()
    images = pictures(2, 40, 50)  # padded to 64 x 64
    for stage, (height, width) in enumerate(((10, 13), (5, 7), (2, 2))):
        got = stage_descriptors(encoder, images, stage)
        assert got.shape == (2, height * width, encoder.channels[stage])
        np.testing.assert_allclose(
            got,
            maps_of(encoder, images)[stage][..., :height, :width].flatten(2).transpose(1, 2),
            atol=1e-5,
        )
    assert not encoder.training


def test_bad_arguments_are_named_and_leave_the_net(net):
    for bad in (pictures(2).astype(np.float32), pictures(2)[0], pictures(2)[..., :2], pictures(0)):
        with pytest.raises(ValueError, match="images: expected"):
            stage_descriptors(net, bad, 0)
    for stage in (2, -3):
        with pytest.raises(ValueError, match=f"stage {stage}: the net has 2 stages"):
            stage_descriptors(net, pictures(2), stage)
    with pytest.raises(ValueError, match="batch"):
        stage_descriptors(net, pictures(2), 0, batch=0)
    assert net.training and net.drop.training and not net.norm.training
