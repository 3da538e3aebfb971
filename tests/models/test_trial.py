"""The forward pass before training: it finds what cannot train, and leaves no trace."""

import pytest
import torch

from cfnseg.config import Model
from cfnseg.errors import UserError
from cfnseg.models.build import MODELS, build_model
from cfnseg.models.trial import try_model
from tests.conftest import ENCODER

NEED_TWO = {"deeplabv3", "deeplabv3plus", "upernet"}  # batch norm after global pooling


def settings_of(name: str) -> Model:
    return Model(name=name, encoder=ENCODER, encoder_weights=None, width=8, grid=(2, 2))


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_one(name):
    settings = settings_of(name)
    model = build_model(settings, 3)
    if name in NEED_TWO:
        with pytest.raises(
            ValueError, match="more than 1 value per channel"
        ):  # training's own message
            model.train()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        with pytest.raises(
            UserError,
            match=f"model.name {name} with one image at a time: .* set --train.batch 2 or more",
        ) as error:
            try_model(model, settings, (64, 64), 1)
        assert error.value.code == 2
    else:
        try_model(model, settings, (64, 64), 1)
    try_model(model, settings, (64, 64), 2)


def test_a_batch_of_one_at_the_image_level():
    settings = Model(
        level="image", encoder=ENCODER, encoder_weights=None, width=8, fusion_norm="none"
    )
    try_model(build_model(settings, 3), settings, (64, 64), 1)


def test_a_crop_of_one_cell():
    """At 32 x 32 the last stage is one cell, and with one image a batch norm sees one value."""
    settings = settings_of("cfn")
    model = build_model(settings, 3)
    try_model(model, settings, (32, 32), 2)
    with pytest.raises(UserError, match="set --train.batch 2 or more"):
        try_model(model, settings, (32, 32), 1)


@pytest.mark.parametrize("training", [True, False])
def test_it_leaves_no_trace(training):
    settings = settings_of("deeplabv3")
    model = build_model(settings, 3).train(training)
    model.encoder.eval()
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(7)
    random = torch.get_rng_state()
    try_model(model, settings, (64, 64), 2)
    with pytest.raises(UserError):
        try_model(model, settings, (64, 64), 1)
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
