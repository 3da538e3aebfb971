"""The parts of branches and biases: they sum to the logits, and each is what it says."""

import itertools

import pytest
import torch
from torch import nn

from cfnseg.errors import UserError
from cfnseg.models.baselines import BASELINES
from cfnseg.models.cfn import CFN
from cfnseg.models.contributions import contributions
from cfnseg.models.fusion import FUSIONS
from cfnseg.models.fusion.base import NORMS
from tests.conftest import ENCODER

REGION = torch.tensor([[0.0, 0, 1, 1], [0.2, 0.1, 0.9, 1.3]])


def noisy(net: nn.Module, seed: int = 3) -> nn.Module:
    """The net in eval mode with noise on every parameter and statistic behind its encoder."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*net.named_parameters(), *net.named_buffers()]:
            if name.startswith("encoder") or not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=draw)
            value.copy_(0.5 + noise.abs() if name.endswith("running_var") else value + 0.4 * noise)
    return net.eval()


def built(**settings) -> CFN:
    torch.manual_seed(0)
    return noisy(CFN(ENCODER, 5, **{"width": 6, "grid": (2, 3)} | settings))


def drawn(count: int = 2, size: tuple[int, int] = (45, 71)) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, *size), generator=draw, dtype=torch.uint8)


def both(net: CFN, images: torch.Tensor, region: torch.Tensor | None = None):
    """Logits, parts and bias, with the same draws of a displaced fusion."""
    torch.manual_seed(1)
    with torch.no_grad():
        logits = net(images, region).pixel
    torch.manual_seed(1)
    return logits, *contributions(net, images, region)


KINDS = list(itertools.product(FUSIONS, ("eflp", "eplf"), NORMS))


@pytest.mark.parametrize("dtype, error", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("fusion, order, norm", KINDS)
def test_parts_sum_to_the_logits(fusion, order, norm, dtype, error):
    k = KINDS.index((fusion, order, norm))
    more = {"refine": k % 3, "context": k % 2 == 0, "receive": ("linear", "relu")[k // 2 % 2]}
    net = built(fusion=fusion, order=order, fusion_norm=norm, **more).to(dtype)
    logits, parts, bias = both(net, drawn(), REGION)
    assert bias.shape == logits.shape
    assert parts.shape == (2, len(net.branch_names), *logits.shape[1:])
    assert (parts.sum(1) + bias - logits).abs().max() <= error * logits.abs().max()
    assert parts.abs().amax((0, 2, 3, 4)).min() > 0  # no part is a rest


@pytest.mark.parametrize("size", [(32, 32), (33, 97), (64, 50)])
@pytest.mark.parametrize(
    "more",
    [
        {"receive": "relu", "context": False, "refine": 0, "fusion_norm": "none"},  # first edition
        {"refine": 2},
        {"strides": (8, 32), "start": "mean"},
    ],
)
def test_any_size(more, size):
    logits, parts, bias = both(built(**more).double(), drawn(1, size))
    torch.testing.assert_close(parts.sum(1) + bias, logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("order", ["eflp", "eplf"])
@pytest.mark.parametrize("fusion", ["sum", "conv", "lc"])
def test_a_part_is_gradient_times_input_at_the_fusion(fusion, order):
    """Autograd knows the gates by itself; the bias is what zero branches give behind them."""
    net = built(fusion=fusion, order=order, refine=2).double()
    with torch.no_grad():
        maps = net.receive(net.encoder(drawn(1)), drawn(1).shape[-2:])
        maps = maps if order == "eflp" else net.pixel.predict(maps)
    maps = [m.requires_grad_() for m in maps]
    place = torch.tensor([[0.0, 0.0, 96 / 71, 64 / 45]])
    out = net.pixel.fuse(maps, place)
    out = net.pixel.predict([out])[0] if order == "eflp" else out
    parts, _ = contributions(net, drawn(1))
    for c, i, j in [(0, 0, 0), (3, 5, 17), (4, 11, 9)]:
        grads = torch.autograd.grad(out[0, c, i, j], maps, retain_graph=True)
        expected = torch.stack([(g * m).sum() for g, m in zip(grads, maps)])
        torch.testing.assert_close(parts[0, :, c, i, j], expected, rtol=1e-9, atol=1e-9)


def test_closed_gates_leave_the_biases_alone():
    net = built(refine=1)
    with torch.no_grad():
        net.pixel.fusion.norm.bias.fill_(-1e6)
    logits, parts, bias = both(net, drawn())
    assert not parts.any()
    torch.testing.assert_close(bias, logits)


def test_open_gates_make_each_part_the_branch_alone():
    net = built(refine=0, fusion="sum", fusion_norm="channel").double()
    with torch.no_grad():
        net.pixel.fusion.norm.bias.fill_(1e6)
        images = drawn()
        alone = net.receive(net.encoder(images), images.shape[-2:])
        none = [torch.zeros_like(m) for m in alone]
        nothing = net.pixel(none)[0]
        _, parts, _ = both(net, images)
        for s in range(len(alone)):
            own = net.pixel([*none[:s], alone[s], *none[s + 1 :]])[0] - nothing
            torch.testing.assert_close(parts[:, s], own[..., :12, :18], rtol=1e-5, atol=1e-5)


def test_a_branch_of_weight_zero_has_no_part():
    net = built(fusion="conv", context=False)
    with torch.no_grad():
        net.pixel.fusion.delta[1] = -net.pixel.fusion.start
    _, parts, _ = both(net, drawn())
    assert not parts[:, 1].any() and parts[:, 0].any()


def test_the_model_stays_in_its_mode_and_keeps_its_statistics():
    net = built().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    _, parts, _ = both(net.eval(), drawn())
    again, _ = contributions(net.train(), drawn())
    assert net.training and net.pixel.refine.training
    torch.testing.assert_close(again, parts)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not again.requires_grad


def test_names():
    assert built().branch_names == [
        *(f"stride {s}" for s in (2, 4, 8, 16, 32)),
        "context",
    ]
    assert built(strides=(8, 32), context=False).branch_names == ["stride 8", "stride 32"]


@pytest.mark.parametrize("name", BASELINES)
def test_baselines(name):
    """Those that are a CFN have parts; the others are one line."""
    net = noisy(BASELINES[name](ENCODER, 5, width=6))
    if isinstance(net, CFN):
        logits, parts, bias = both(net, drawn())
        torch.testing.assert_close(parts.sum(1) + bias, logits, rtol=1e-5, atol=1e-5)
    else:
        with pytest.raises(UserError, match=f"{type(net).__name__} does not") as error:
            contributions(net, drawn())
        assert error.value.code == 2 and "\n" not in str(error.value)
