"""A folded net is the same function of an image."""

import copy

import pytest
import torch
from torch import nn

from cfnseg.config import Model
from cfnseg.models.build import build_model
from cfnseg.models.folding import folded
from cfnseg.models.fusion import FUSIONS
from tests.conftest import ENCODER


def trained(seed: int = 0, **settings) -> nn.Module:
    """A net in whose norms and fusion nothing is at its start."""
    torch.manual_seed(seed)
    model = Model(encoder=ENCODER, encoder_weights=None, width=8, **{"grid": (1, 1)} | settings)
    net = build_model(model, 5)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            if part.affine:
                nn.init.uniform_(part.weight, -1.5, 1.5)
                nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.2, 3)
    for name, parameter in net.named_parameters():
        if "fusion." in name and ".norm." not in name:
            nn.init.normal_(parameter)
    return net.eval()


CASES = [
    *({"fusion": name, "grid": grid} for name in FUSIONS for grid in ((1, 1), (2, 3))),
    *({"fusion_norm": norm} for norm in ("none", "single")),
    *({"fusion_norm": norm, "grid": (3, 1)} for norm in ("none", "single")),
    {"receive": "relu", "strides": (4, 8, 16, 32)},
    {"receive": "relu", "context": False, "refine": 0, "fusion_norm": "none"},
    {"context": False, "refine": 2, "start": "mean"},
    {"order": "eplf"},
    {"order": "eplf", "grid": (2, 3), "receive": "relu"},
    {"fusion": "sum", "strides": (8, 32), "start": "mean"},
    *({"name": name} for name in ("plain", "dag_cnn", "hed", "dsn", "fcn", "fpn")),
]


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_the_same_scores(settings):
    net = trained(**settings)
    before = copy.deepcopy(net.state_dict())
    images = torch.randint(0, 256, (2, 3, 65, 97), dtype=torch.uint8)
    region = torch.tensor([[0.1, 0.2, 0.7, 0.8], [0, 0, 1, 1]])
    with torch.inference_mode():
        for where in (None, region):
            torch.manual_seed(1)  # displaced draws
            expected = net(images, where)
            torch.manual_seed(1)
            got = folded(net)(images, where)
            scale = expected.pixel.abs().max()
            assert (got.pixel - expected.pixel).abs().max() <= 1e-5 * scale
            assert torch.equal(got.image, expected.image) or torch.allclose(
                got.image, expected.image, rtol=1e-4, atol=1e-4 * float(expected.image.abs().max())
            )
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("fusion", ["sum", "conv", "lc"])
def test_the_head_is_one_convolution_a_stage(fusion):
    net = folded(trained(fusion=fusion))
    weight, _ = net.pixel.fusion.grids()
    assert weight.shape == (6, 8, 1, 1) and (weight == 1).all()
    head = [p for name, p in net.named_modules() if name.startswith(("pixel", "branches", "con"))]
    assert not any(isinstance(part, nn.BatchNorm2d) for part in head)
    assert all(len(branch) == 1 for branch in net.branches)


def test_folded_nets_and_other_modules_stay_as_they_are():
    for net in (nn.Conv2d(3, 5, 1), folded(trained()), folded(trained(fusion="adaptive"))):
        assert folded(net) is net
