"""The two orders of fusing and predicting, by hand."""

import pytest
import torch
import torch.nn.functional as F

from cfnseg.errors import UserError
from cfnseg.models.parts import Head, SideBranch

N, S, K, C = 2, 3, 4, 5
SIZES = [(6, 8), (3, 4), (2, 2)]


@pytest.fixture
def branches():
    torch.manual_seed(0)
    return [torch.randn(N, K, *size, dtype=torch.float64) for size in SIZES]


def head(order: str, fusion: str = "lc", **settings) -> Head:
    """Untrained, except that its scores are not near 0."""
    torch.manual_seed(1)
    built = Head(S, K, C, order, fusion=fusion, std=1.0, **settings)
    for predictor in built.predictors:
        torch.nn.init.normal_(predictor[-1].bias)
    return built.double().eval()


def trained(built: Head) -> Head:
    torch.nn.init.normal_(built.fusion.delta)
    torch.nn.init.normal_(built.fusion.bias)
    return built


def up(x: torch.Tensor) -> torch.Tensor:
    return (
        x
        if x.shape[-2:] == SIZES[0]
        else F.interpolate(x, size=SIZES[0], mode="bilinear", align_corners=False)
    )


def classified(predictor: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """V x + c at every cell."""
    conv = predictor[-1]
    return torch.einsum("ck,nkhw->nchw", conv.weight[:, :, 0, 0], x) + conv.bias[:, None, None]


def test_eflp_by_hand(branches):
    built = trained(head("eflp"))
    weight, bias = (built.fusion.delta + 1)[..., 0, 0], built.fusion.bias[:, 0, 0]
    assert weight.shape == (S, K)
    fused = F.relu(
        sum(weight[s][:, None, None] * up(b) for s, b in enumerate(branches)) + bias[:, None, None]
    )
    logits, scores = built(branches)
    torch.testing.assert_close(logits, classified(built.predictors[0], fused))
    assert scores == []
    assert len(built.predictors) == 1


def test_eplf_by_hand(branches):
    built = trained(head("eplf"))
    weight, bias = (built.fusion.delta + 1)[..., 0, 0], built.fusion.bias[:, 0, 0]
    assert weight.shape == (S, C)
    by_hand = [classified(p, b) for p, b in zip(built.predictors, branches)]
    expected = (
        sum(weight[s][:, None, None] * up(x) for s, x in enumerate(by_hand)) + bias[:, None, None]
    )
    logits, scores = built(branches)
    torch.testing.assert_close(logits, expected)
    assert len(scores) == S
    for got, wanted in zip(scores, by_hand):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("fusion", ["lc", "sum", "conv", "adaptive", "displaced"])
@pytest.mark.parametrize("order", ["eflp", "eplf"])
def test_class_scores_see_no_relu(branches, order, fusion):
    logits, _ = head(order, fusion, grid=(2, 3))(branches)
    assert (logits < 0).any(1).any()
    assert (logits == 0).sum() == 0


@pytest.mark.parametrize("order, where", [("eflp", "fusion"), ("eplf", "classes")])
def test_the_bias_of_a_grid_is_a_prior_by_place(branches, order, where):
    built = head(order, grid=(2, 2))
    before, _ = built(branches)
    with torch.no_grad():
        built.fusion.bias[1, 0, 0] += 100.0
    moved = (built(branches)[0] - before).abs().amax(0) > 1e-9
    assert moved[:, 0, 0].any()
    assert not moved[:, -1, -1].any()
    if where == "classes":
        assert moved.any(2).any(1).tolist() == [c == 1 for c in range(C)]


@pytest.mark.parametrize("channels", [16, 320])
def test_no_stage_outshouts_another(channels):
    """At the start a linear branch has variance 1, whatever its stage's mean and scale."""
    torch.manual_seed(0)
    stage = 30 + 9 * torch.randn(4, channels, 16, 16)
    sent = SideBranch(channels, 512, linear=True)(stage)
    assert sent.mean().abs() < 0.05 and 0.8 < sent.var() < 1.25


def test_a_linear_branch_is_linear_and_averages():
    torch.manual_seed(0)
    branch = SideBranch(6, K, linear=True, pool=2).double()
    a, b = torch.randn(2, 5, 6, 8, 10, dtype=torch.float64)
    branch(a + b)  # counts mean and variance
    branch.eval()
    both, zero = branch(a + b), branch(torch.zeros_like(a))
    assert both.shape == (5, K, 4, 5)
    torch.testing.assert_close(both + zero, branch(a) + branch(b))
    once = SideBranch(6, K, linear=True).double().eval()
    once.load_state_dict(branch.state_dict())
    torch.testing.assert_close(both, F.avg_pool2d(once(a + b), 2))


@pytest.mark.parametrize("start", ["sum", "mean"])
def test_untrained_eplf_with_lc_is_dag_cnn(branches, start):
    lc, dag = head("eplf", "lc", grid=(2, 3), start=start), head("eplf", "sum", start=start)
    dag.load_state_dict(lc.state_dict(), strict=False)
    torch.testing.assert_close(lc(branches)[0], dag(branches)[0], rtol=1e-12, atol=1e-12)


def test_linear_orders_agree():
    """Without an active ReLU (features >= 0), untrained sums commute with a shared classifier."""
    torch.manual_seed(0)
    positive = [torch.rand(N, K, *size, dtype=torch.float64) for size in SIZES]
    early, late = head("eflp", "sum"), head("eplf", "sum")
    for predictor in late.predictors:
        predictor.load_state_dict(early.predictors[0].state_dict())
    bias = early.predictors[0][-1].bias[:, None, None]
    torch.testing.assert_close(late(positive)[0] - (S - 1) * bias, early(positive)[0])


@pytest.mark.parametrize("order", ["eflp", "eplf"])
def test_on_single_cells_it_is_the_image_head(order):
    torch.manual_seed(0)
    pooled = [torch.randn(N, K, dtype=torch.float64) for _ in range(S)]
    built = head(order, "sum")
    expected = (
        F.linear(
            F.relu(sum(pooled)),
            *(p.flatten(1) if p.ndim > 1 else p for p in built.predictors[0][-1].parameters()),
        )
        if order == "eflp"
        else sum(
            classified(p, x[..., None, None])[..., 0, 0] for p, x in zip(built.predictors, pooled)
        )
    )
    torch.testing.assert_close(built([x[..., None, None] for x in pooled])[0].flatten(1), expected)


def test_dropout_takes_whole_channels_and_only_in_training():
    built = Head(1, K, C, fusion="sum", dropout=0.5)
    dropped = built.predictors[0][0].train()(torch.ones(8, K, 3, 3))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped, dropped[..., :1, :1].expand_as(dropped))
    ones = [torch.ones(1, K, 3, 3)]
    assert torch.equal(built.eval()(ones)[0], built(ones)[0])


def test_unknown_order():
    with pytest.raises(
        UserError, match=r"model\.order 'eflb' is unknown; did you mean eflp"
    ) as error:
        Head(1, 2, 3, "eflb")
    assert error.value.code == 2
