"""The baselines: each does what its paper's one sentence says, and nothing of what CFN adds."""

import inspect

import pytest
import torch
import torch.nn.functional as F

from cfnseg.config import Loss, Model
from cfnseg.models import baselines
from cfnseg.models.baselines import BASELINES
from cfnseg.models.build import build_model
from cfnseg.training.loss import batch_loss, side_weight
from tests.conftest import ENCODER

SIZE, STRIDES, C = (40, 72), (4, 8, 16, 32), 5
CELLS = [(-(-SIZE[0] // s), -(-SIZE[1] // s)) for s in STRIDES]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    torch.manual_seed(5)
    return torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)


def baseline(name: str, **settings) -> torch.nn.Module:
    """One with scores that are not near 0, in eval mode."""
    torch.manual_seed(0)
    net = build_model(
        Model(name=name, encoder=ENCODER, encoder_weights=None, width=8, grid=(2, 3), **settings), C
    )
    for key, p in net.named_parameters():
        if not key.startswith("encoder.") and "fusion." not in key and p.ndim == 4:
            torch.nn.init.normal_(p)
    return net.eval()


def up(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return (
        x
        if x.shape[-2:] == size
        else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    )


@pytest.mark.parametrize("name", BASELINES)
def test_each_is_short(name):
    lines = [line for line in inspect.getsource(BASELINES[name]).splitlines() if line.strip()]
    assert len(lines) <= 40, f"{name} takes {len(lines)} lines"
    assert len(inspect.getsource(baselines).splitlines()) <= 165


def test_plain_has_the_main_branch_alone(images):
    net = baseline("plain", fusion="adaptive", order="eplf", fusion_norm="none")
    assert len(net.branches) == 1 and net.context is None
    assert net.parameter_table()["fusion"] == 0
    stages = net.encoder(images)
    assert [tuple(s.shape[-2:]) for s in stages] == [(2, 3)]
    fused = net.pixel.refine(net.branches[0](stages[0]).relu())
    expected = net.pixel.predictors[0](fused)
    out = net(images)
    torch.testing.assert_close(out.pixel, expected)
    assert out.pixel.shape[-2:] == CELLS[-1]
    assert out.side == ()


def test_plain_ignores_other_branches(images):
    """It is CFN with the other branches at weight 0, less the upsampling to a finer stage."""
    settings = {"refine": 0, "fusion_norm": "none", "context": False}
    net, whole = baseline("plain", **settings), baseline("cfn", **settings)
    whole.encoder.load_state_dict(net.encoder.state_dict())
    whole.branches[-1].load_state_dict(net.branches[0].state_dict())
    whole.pixel.predictors.load_state_dict(net.pixel.predictors.state_dict())
    with torch.no_grad():
        whole.pixel.fusion.delta[:-1] = -1.0  # a weight of 0
        stage = whole.branches[-1](whole.encoder(images)[-1])
        torch.testing.assert_close(net(images).pixel, whole.pixel.predictors[0](stage.relu()))
        expected = whole.pixel.predictors[0](up(stage, (16, 24)).relu())[..., :10, :18]
        torch.testing.assert_close(whole(images).pixel, expected)


def test_fcn_by_hand(images):
    net = baseline("fcn")
    assert not hasattr(net, "branches")
    with torch.no_grad():
        stages = net.encoder(images)
        pixel, image = 0, 0
        for stage, conv, fc, s in zip(stages, net.pixel_scores, net.image_scores, STRIDES):
            pixel = pixel + up(F.conv2d(stage, conv[-1].weight, conv[-1].bias), (16, 24))
            seen = stage[..., : -(-SIZE[0] // s), : -(-SIZE[1] // s)].mean((2, 3))
            image = image + F.linear(seen, fc[-1].weight[:, :, 0, 0], fc[-1].bias)
        out = net(images)
    torch.testing.assert_close(out.pixel, pixel[..., :10, :18])
    torch.testing.assert_close(out.image, image)


@pytest.mark.parametrize("start, factor", [("sum", 1.0), ("mean", 0.25)])
def test_dag_cnn_is_the_sum_of_a_classifier_per_branch(images, start, factor):
    net = baseline("dag_cnn", start=start, order="eflp", fusion="lc")
    with torch.no_grad():
        branches = [b(s) for b, s in zip(net.branches, net.encoder(images))]
        expected = factor * sum(up(p(b), (16, 24)) for p, b in zip(net.pixel.predictors, branches))
        torch.testing.assert_close(net(images).pixel, expected[..., :10, :18])
    assert net.parameter_table()["fusion"] == 0


def test_hed_has_a_weight_per_branch_and_scores_of_each_in_training_only(images):
    net = baseline("hed")
    assert net.pixel.fusion.delta.shape == (4,)
    assert net(images).side == ()
    side = net.train()(images).side
    assert [tuple(x.shape) for x in side] == [(2, C, *cells) for cells in CELLS]
    net.eval().side_losses = True
    with torch.no_grad():
        net.pixel.fusion.delta[:] = torch.tensor([-1.0, -1.0, -1.0, 1.0])  # 0 0 0 2
        branches = [b(s) for b, s in zip(net.branches, net.encoder(images))]
        expected = 2 * up(net.pixel.predictors[-1](branches[-1]), (16, 24))[..., :10, :18]
        torch.testing.assert_close(net(images).pixel, expected)


def test_dsn_has_companions_in_training_only(images):
    net = baseline("dsn")
    assert net(images).side == ()
    out = net.train()(images)
    assert [tuple(x.shape) for x in out.side] == [(2, C, *cells) for cells in CELLS[:-1]]
    assert out.pixel.shape[-2:] == CELLS[-1]


def test_companions_do_not_change_inference(images):
    net = baseline("dsn")
    with torch.no_grad():
        before = net(images)
        for p in net.companions.parameters():
            p.fill_(float("nan"))
        after = net(images)
    assert torch.equal(before.pixel, after.pixel)
    assert torch.equal(before.image, after.image)


def test_dsn_is_the_plain_net_at_inference(images):
    dsn, plain = baseline("dsn"), baseline("plain")
    plain.encoder.load_state_dict(dsn.encoder.state_dict())
    plain.branches[0].load_state_dict(dsn.branch.state_dict())
    for level in ("pixel", "image"):
        getattr(plain, level).load_state_dict(getattr(dsn, level).state_dict())
    with torch.no_grad():
        a, b = dsn(images), plain(images)
    assert torch.equal(a.pixel, b.pixel)
    assert torch.equal(a.image, b.image)
    table = dsn.parameter_table()
    assert table["total"] - table["companions"] == plain.parameter_table()["total"]


def test_companions_fade_and_hed_does_not():
    settings = Loss(side=0.4)
    dsn, hed, cfn = baseline("dsn"), baseline("hed"), baseline("cfn")
    assert [side_weight(dsn, settings, p) for p in (0, 0.5, 1)] == [0.4, 0.2, 0.0]
    assert [side_weight(hed, settings, p) for p in (0, 0.5, 1)] == [0.4] * 3
    assert [side_weight(cfn, settings, p) for p in (0, 1)] == [
        0.4
    ] * 2  # it has no side outputs to weigh


@pytest.mark.parametrize("name", ["hed", "dsn"])
def test_the_loss_is_linear_in_the_side_weight_and_each_side_counts(name, images):
    net = baseline(name).train()
    torch.manual_seed(1)
    out = net(images)
    mask = torch.randint(0, C, (2, *SIZE), dtype=torch.uint8)
    mask[:, :7] = 255
    at = [batch_loss(out, mask, Loss(), None, side=w).item() for w in (0.0, 0.5, 1.0)]
    assert at[2] - at[0] == pytest.approx(2 * (at[1] - at[0]), rel=1e-5)
    full = [
        F.interpolate(x, scale_factor=s, mode="bilinear", align_corners=False)[
            ..., : SIZE[0], : SIZE[1]
        ]
        for x, s in zip(out.side, STRIDES)
    ]
    by_hand = sum(F.cross_entropy(x, mask.long(), ignore_index=255) for x in full)
    assert at[2] - at[0] == pytest.approx(by_hand.item(), rel=1e-5)


def test_companions_teach_the_lower_stages_and_stop_at_weight_0(images):
    net = baseline("dsn").train()
    mask = torch.randint(0, C, (2, *SIZE), dtype=torch.uint8)
    for side, taught in ((0.3, True), (0.0, False)):
        net.zero_grad()
        batch_loss(net(images), mask, Loss(), None, side=side).backward()
        assert all(
            (p.grad.abs().sum() > 0) == taught for c in net.companions for p in c.parameters()
        )
