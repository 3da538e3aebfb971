"""Fused updates give the plain ones' weights, from any checkpoint, with a gradient scaler too."""

import copy
import dataclasses
import signal

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from torch import nn

from cfnseg.config import Optim
from cfnseg.training import run as engine
from cfnseg.training.checkpoint import load_checkpoint
from cfnseg.training.optim import build_optimizer, clip_gradients

SETTINGS = [
    Optim(name="adamw", lr=1e-2),
    Optim(name="sgd", lr=1e-2),
    Optim(name="sgd", lr=1e-2, momentum=0.0),
]


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.Flatten(),
        nn.LazyLinear(2),
    )
    layers(torch.zeros(2, 3, 6, 6))
    return layers.double()  # Adam makes whole steps of the rounding in a bias's zero gradient


def plain(model: nn.Module, settings: Optim) -> torch.optim.Optimizer:
    """What the first edition had: neither fused nor for each."""
    optimizer = build_optimizer(model, settings)
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group |= {"fused": False, "foreach": False}
    return optimizer


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for i in range(first, last):
        torch.manual_seed(i)
        optimizer.zero_grad()
        model(torch.randn(4, 3, 6, 6).double()).square().mean().backward()
        optimizer.step()


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_is_the_plain_update(settings, layout):
    ours, theirs = (network().to(memory_format=layout) for _ in range(2))
    optimizer = build_optimizer(ours, settings)
    assert all(g["fused"] for g in optimizer.param_groups)
    steps(ours, optimizer, 0, 5)
    steps(theirs, plain(theirs, settings), 0, 5)
    # Adam divides a zero gradient's rounding by eps = 1e-8
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-9, atol=1e-10)
    assert not torch.equal(weights(ours), weights(network()))


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_resumed_update_has_the_same_bits(settings, tmp_path):
    whole, part = network(), network()
    steps(whole, build_optimizer(whole, settings), 0, 6)
    optimizer = build_optimizer(part, settings)
    steps(part, optimizer, 0, 3)
    torch.save({"model": part.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x.pt")
    saved = torch.load(tmp_path / "x.pt", weights_only=True)
    other = network()
    other.load_state_dict(saved["model"])
    optimizer = build_optimizer(other, settings)
    optimizer.load_state_dict(saved["optimizer"])
    steps(other, optimizer, 3, 6)
    assert torch.equal(weights(other), weights(whole))


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_checkpoint_of_the_plain_update_goes_on_fused(settings):
    theirs = network()
    optimizer = plain(theirs, settings)
    steps(theirs, optimizer, 0, 3)
    ours = copy.deepcopy(theirs)
    saved = copy.deepcopy(optimizer.state_dict())
    fused = build_optimizer(ours, settings)
    fused.load_state_dict(saved)
    assert all(g["fused"] for g in fused.param_groups)
    assert not any(g["fused"] for g in saved["param_groups"])
    steps(ours, fused, 3, 5)
    steps(theirs, optimizer, 3, 5)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-9, atol=1e-12)


def test_devices_without_the_kernel_get_the_plain_update():
    with torch.device("meta"):
        model = nn.Conv2d(3, 8, 3)
    assert not any(g["fused"] for g in build_optimizer(model, SETTINGS[0]).param_groups)


def scaled() -> Fabric:
    """float16 on a CPU, which Fabric alone would turn into bfloat16."""
    return Fabric(
        accelerator="cpu",
        devices=1,
        plugins=[MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))],
    )


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_a_gradient_scaler_changes_nothing_and_skips_what_overflows(settings, clip):
    """float16 on a CPU: the scale is found, an overflow moves no weight, clipping is unscaled."""
    fabric = scaled()
    scaler = fabric.strategy.precision.scaler
    network_ = network()  # outside Fabric's autocast: only the scaler is looked at
    other = copy.deepcopy(network_)
    optimizer, reference = (
        fabric.setup_optimizers(build_optimizer(network_, settings)),
        plain(other, settings),
    )
    for i in range(4):
        torch.manual_seed(i)
        x = torch.randn(4, 3, 6, 6).double()
        before = weights(network_)
        loss = network_(x).square().mean()
        fabric.backward(loss)
        if i in (0, 2):  # also before there is any state
            network_[0].weight.grad[0, 0, 0, 0] = float("inf")
        norm = clip_gradients(fabric, optimizer, clip)
        scale = scaler.get_scale()
        optimizer.step()
        optimizer.zero_grad()
        if i in (0, 2):
            assert torch.equal(weights(network_), before)
            assert scaler.get_scale() == scale / 2
            assert not norm.isfinite()
            continue
        other.load_state_dict(
            network_.state_dict()
            | {k: v for k, v in other.state_dict().items() if "running" not in k}
        )
        reference.zero_grad()
        other.train()(x).square().mean().backward()
        exact = nn.utils.clip_grad_norm_(other.parameters(), clip or float("inf"))
        reference.step()
        torch.testing.assert_close(norm, exact, rtol=1e-6, atol=0)
        torch.testing.assert_close(weights(network_), weights(other), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_run_in_float16_trains_and_resumes(tiny, name, monkeypatch):
    """Two steps in one run, and one step, then another after a resume: the same bits."""
    monkeypatch.setattr(engine, "build_fabric", lambda _: scaled())
    tiny = dataclasses.replace(
        tiny,
        optim=dataclasses.replace(tiny.optim, name=name, clip=1.0),
        train=dataclasses.replace(tiny.train, precision="16-mixed", max_steps=2, save_every=1),
    )
    whole = engine.Run(tiny)
    before = weights(whole.network)
    whole.train()
    stopped = engine.Run(dataclasses.replace(tiny, name="other"))
    stopped.stopping.asked = signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    assert load_checkpoint(f"{tiny.runs}/other/last.ckpt")["state"]["step"] == 1
    again = engine.Run(dataclasses.replace(tiny, name="other"), resume=True)
    again.train()
    assert torch.equal(weights(again.network), weights(whole.network))
    assert not torch.equal(weights(whole.network), before)
