"""What the package expects of a model, and what a module with a forward pass alone gets."""

import pytest
import torch
from torch import nn

from cfnseg.config import Model
from cfnseg.inference.predictor import segment
from cfnseg.models.build import MODELS, build_model
from cfnseg.models.segmenter import Output, as_segmenter, in_mode
from tests.conftest import ENCODER


class Forward(nn.Module):
    """A user's own network: logits that favour class 1 where the image is bright."""

    def forward(self, images, region):
        bright = (
            nn.functional.avg_pool2d(images.float().mean(1, keepdim=True), 4, ceil_mode=True) - 100
        )
        return Output(
            torch.cat([-bright, bright], 1), bright.amax((1, 2, 3))[:, None].expand(-1, 2)
        )


def test_a_forward_pass_alone_is_enough():
    module = Forward()
    model = as_segmenter(module)
    assert (model.test_scale, model.side_fades) == (1.0, False)
    assert model.parameter_table()["total"] == 0
    assert as_segmenter(model) is model
    image = torch.zeros(3, 48, 40, dtype=torch.uint8)
    image[:, :, 20:] = 255
    mask = segment(module, image).mask
    assert mask.shape == (48, 40)
    assert not mask[:, :16].any() and mask[:, 24:].all()


def test_attributes_of_the_module_are_kept():
    module = Forward()
    module.test_scale = 1.5
    model = as_segmenter(module)
    assert (model.test_scale, model.side_fades) == (1.5, False)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_a_segmenter(name):
    with torch.device("meta"):
        settings = Model(name=name, encoder=ENCODER, encoder_weights=None, width=8, test_scale=1.25)
        model = build_model(settings, 3)
    assert as_segmenter(model) is model
    assert model.test_scale == 1.25
    assert model.side_fades == (name == "dsn")


def test_a_compiled_model_stays_itself():
    model = torch.compile(
        build_model(Model(encoder=ENCODER, encoder_weights=None, test_scale=1.25), 3)
    )
    assert as_segmenter(model) is model
    assert model.test_scale == 1.25


def test_each_part_keeps_its_mode():
    """A frozen batch norm stays in evaluation mode through a validation."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).train()
    model[0].eval()
    with in_mode(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == [True, False, True]
