"""The encoder: which backbones and strides it takes, and what it builds."""

import pytest
import torch

from cfnseg.errors import UserError
from cfnseg.models.encoder import Encoder
from tests.conftest import ENCODER


def test_unknown_encoder_gets_near_names():
    with pytest.raises(UserError, match="resnet50"):
        Encoder("resnet5O", (4, 8, 16, 32))


def test_a_stride_the_encoder_lacks():
    with pytest.raises(UserError, match=r"no stage at stride 64; it has \[2, 4, 8, 16, 32\]"):
        Encoder(ENCODER, (4, 64))


def test_stages_that_nothing_reads_are_not_built():
    encoder = Encoder("resnet18", (4, 8))
    sum(f.sum() for f in encoder(torch.rand(1, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("strides", [(), (8, 4), (4, 4)])
def test_strides_ascend(strides):
    with pytest.raises(UserError, match="ascending"):
        Encoder(ENCODER, strides)


def test_a_hub_address_is_refused():
    with pytest.raises(UserError, match="not an address"):
        Encoder("hf-hub:someone/something", (4,))
