"""The authors' classification nets to the last parameter, and CFN branches on any backbone."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cfnseg.config import Model
from cfnseg.errors import UserError
from cfnseg.models.authors import CifarNet, global_contrast
from cfnseg.models.build import build_model
from cfnseg.models.fusion.base import SingleChannelNorm
from tests.conftest import ENCODER


def build(classes: int = 10, **settings) -> nn.Module:
    base = {
        "encoder": "cifar_net",
        "encoder_weights": None,
        "width": 192,
        "start": "mean",
        "fusion_norm": "none",
        "dropout": 0.5,
    }
    return build_model(Model(level="image", **base | settings), classes)


@pytest.mark.parametrize(
    ("settings", "classes", "total"),
    [
        ({"name": "plain"}, 10, 1_286_698),
        ({}, 10, 1_343_146),
        ({"name": "plain", "encoder": "cfn11", "width": 1024}, 1000, 6_283_368),
        ({"encoder": "cfn11", "width": 1024, "fusion_norm": "single"}, 1000, 6_752_362),
    ],
)
def test_parameters_are_those_of_the_authors(settings, classes, total):
    net = build(classes, **settings)
    assert sum(p.numel() for p in net.parameters()) == net.parameter_table()["total"] == total


def test_parts_of_the_cifar_net():
    net, plain = build(), build(name="plain")
    assert net.parameter_table()["fusion"] == 768
    assert net.parameter_table()["branches"] - plain.parameter_table()["branches"] == 55_680
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert (net.image.fusion.delta == 0).all() and net.image.fusion.start == pytest.approx(1 / 3)
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)] == [0.5] * 3


def test_start_of_the_cifar_net_is_the_authors():
    torch.manual_seed(0)
    net = build()
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    for conv in convs[:-1]:
        assert conv.weight.std().item() == pytest.approx(0.05, rel=0.05), conv
    assert convs[-1].weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert all((c.bias == 0).all() for c in convs)


def test_cifar_100():
    net = build(100, encoder="cifar_net_192", kernel=3)
    assert [b[0].kernel_size for b in net.branches] == [(3, 3), (3, 3), (1, 1)]
    assert net.encoder.channels == [192, 192, 192]


def test_forward_by_hand():
    """f = ReLU(sum_s w_s * GAP(ReLU(conv P_s)) + b), then one FC."""
    torch.manual_seed(0)
    net = build().eval()
    nn.init.normal_(net.image.fusion.delta)
    nn.init.normal_(net.image.fusion.bias)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    stages = net.encoder(images)
    assert [tuple(s.shape[1:]) for s in stages] == [(96, 16, 16), (192, 8, 8), (192, 8, 8)]
    pooled = [
        F.relu(F.conv2d(s, b[0].weight, b[0].bias)).mean((2, 3))
        for s, b in zip(stages, net.branches)
    ]
    weight = net.image.fusion.delta[..., 0, 0] + 1 / 3
    fused = F.relu(sum(w * g for w, g in zip(weight, pooled)) + net.image.fusion.bias[:, 0, 0])
    head = net.image.predictors[0][1]
    expected = fused @ head.weight[..., 0, 0].T + head.bias
    torch.testing.assert_close(net(images).image, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.fused(images), fused, rtol=1e-4, atol=1e-5)


def test_global_contrast():
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    images[3] = 77
    out = global_contrast(images)
    assert out.mean((1, 2, 3)).abs().max() < 1e-3
    norms = out.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms[:3], torch.full((3,), 55.0))
    assert (out[3] == 0).all()
    torch.testing.assert_close(
        out[:3], global_contrast(images[:3].float() / 255), rtol=1e-4, atol=1e-4
    )


def test_single_channel_norm_has_one_mean_and_variance():
    norm = SingleChannelNorm().train()
    x = torch.randn(8, 5, 1, 1) * 3 + 2
    expected = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), expected)
    assert norm.norm.running_mean.shape == (1,)


def test_imagenet_net():
    net = build(7, encoder="cfn11", width=1024, fusion_norm="single").train()
    assert net.image.fusion.bias is None
    stages = net.encoder(torch.rand(2, 3, 224, 224))
    assert [tuple(s.shape[1:]) for s in stages] == [
        (64, 28, 28),
        (128, 14, 14),
        (256, 7, 7),
        (512, 7, 7),
    ]
    net(torch.rand(2, 3, 224, 224)).image.sum().backward()
    stem = net.encoder.stem[0]
    assert (stem.bias == 0.2).all() and stem.weight.abs().max() <= math.sqrt(3 / (3 * 49))


@pytest.mark.parametrize("name", ["cfn", "plain", "dag_cnn", "dsn"])
@pytest.mark.parametrize("encoder", ["cifar_net", ENCODER])
def test_every_system_on_every_trunk(name, encoder):
    net = build(name=name, encoder=encoder, width=24)
    images = torch.randint(0, 256, (2, 3, 40, 48), dtype=torch.uint8)
    output = net.train()(images)
    assert output.pixel is None and output.image.shape == (2, 10)
    companions = {"cifar_net": 2, ENCODER: 4}[encoder] if name == "dsn" else 0
    assert [tuple(s.shape) for s in output.side] == [(2, 10)] * companions
    sum([output.image.sum(), *[s.sum() for s in output.side]]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.branches.parameters())
    assert net.eval()(images).side == ()


def test_padding_is_not_pooled():
    """A 40 x 40 image is padded to 64 x 64 inside the backbone; pooling uses its cells alone."""
    net = build(encoder=ENCODER, width=16).eval()
    images = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    stages = net.encoder(images)
    cells = [s[..., : -(-40 // t), : -(-40 // t)] for s, t in zip(stages, net.encoder.strides)]
    pooled = [b(c).mean((2, 3), keepdim=True) for b, c in zip(net.branches, cells)]
    torch.testing.assert_close(net.fused(images), net.image.fusion(pooled).flatten(1))


def test_eplf_fuses_scores():
    net = build(order="eplf").eval()
    assert net.parameter_table()["fusion"] == 3 * 10 + 10
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    pooled = [b(s).mean((2, 3)) for b, s in zip(net.branches, net.encoder(images))]
    scores = [
        g @ p[1].weight[..., 0, 0].T + p[1].bias for g, p in zip(pooled, net.image.predictors)
    ]
    torch.testing.assert_close(net(images).image, sum(scores) / 3, rtol=1e-4, atol=1e-4)


def test_names():
    with pytest.raises(
        UserError, match="model.name 'unet' is unknown.*There are cfn, plain, dag_cnn, dsn"
    ):
        build(name="unet")
    with pytest.raises(UserError, match="not the name of a timm backbone"):
        build(encoder="cifar_nets")
    assert isinstance(build().encoder, CifarNet)
