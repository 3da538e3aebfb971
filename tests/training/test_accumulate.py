"""A batch in parts: the same gradient, found when memory is short."""

import dataclasses

import pytest
import torch
from torch import nn

from cfnseg.config import Config
from cfnseg.errors import UserError
from cfnseg.training import run as engine
from cfnseg.training import start
from cfnseg.training.checkpoint import load_checkpoint
from cfnseg.training.run import split
from cfnseg.training.start import fewest_parts
from tests.conftest import changed


def gradient(config: Config, parts: int, name: str) -> dict[str, torch.Tensor]:
    """The gradient of the first step, with batch norms that use their running statistics."""
    run = engine.Run(dataclasses.replace(changed(config, "train", accumulate=parts), name=name))
    run.model.train()
    for module in run.network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    batch = next(run._batches())
    batch["mask"][0, :40] = 255  # ignored pixels are spread unevenly
    loss = run._backward(batch)
    return {"loss": loss} | {
        k: p.grad for k, p in run.network.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": {"class_weights": "median", "image": 1.0}},
        {"loss": {"class_weights": "median", "terms": ("focal", "lovasz")}},
        {"model": {"name": "hed"}},
        {"model": {"name": "dsn"}},
        {"model": {"output": "sigmoid"}, "loss": {"image": 1.0}},
    ],
)
def test_the_gradient_of_parts_is_that_of_the_whole(tiny, changes):
    config = changed(tiny, "model", dropout=0.0)
    for section, values in changes.items():
        config = changed(config, section, **values)
    whole, parts, each = (
        gradient(config, 1, "whole"),
        gradient(config, 3, "parts"),
        gradient(config, 4, "each"),
    )
    assert len(whole) > 20
    for key, value in whole.items():
        for other in (parts, each):
            torch.testing.assert_close(
                other[key], value, rtol=1e-4, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}"
            )


def test_parts_are_even_and_keep_the_order():
    batch = {"image": torch.arange(7), "names": list("abcdefg")}
    found = split(batch, 3)
    assert [p["names"] for p in found] == [["a", "b"], ["c", "d"], ["e", "f", "g"]]
    assert torch.cat([p["image"] for p in found]).tolist() == list(range(7))
    assert [len(p["image"]) for p in split(batch, 20)] == [1] * 7


class Small:
    """A device whose memory holds so many images at once."""

    def __init__(self, images: int) -> None:
        self.images, self.tried = images, []

    def attempt(self, images: int) -> None:
        self.tried.append(images)
        if images > self.images:
            raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize(
    "memory, images, parts", [(8, 8, 1), (4, 8, 2), (3, 8, 4), (1, 8, 8), (1, 6, 6), (2, 7, 4)]
)
def test_fewest_parts(memory, images, parts):
    device = Small(memory)
    assert fewest_parts(device.attempt, images) == parts
    assert device.tried[-1] <= memory


def test_not_even_one_image_fits():
    with pytest.raises(UserError, match=r"one image at a time is too much .* --data\.crop"):
        fewest_parts(Small(0).attempt, 4)


def short_of_memory(monkeypatch, images: int) -> None:
    """Make the tiny model's forward pass run out of memory on more than ``images`` images."""
    forward = start.build_model

    def build(*args, **kwargs):
        model = forward(*args, **kwargs)
        inner = model.forward

        def limited(batch, *more):
            if len(batch) > images:
                raise torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"
                )
            return inner(batch, *more)

        model.forward = limited
        return model

    monkeypatch.setattr(start, "build_model", build)


def test_auto_keeps_the_total_batch(tiny, monkeypatch, capsys):
    short_of_memory(monkeypatch, 2)
    run = engine.Run(changed(tiny, "train", accumulate=0, max_steps=2))
    before = {k: v.clone() for k, v in run.network.state_dict().items()}
    run.train()
    assert "2 steps of 4 in 2 parts" in capsys.readouterr().out
    assert run.state["parts"] == 2
    assert any(not torch.equal(v, before[k]) for k, v in run.network.state_dict().items())
    assert load_checkpoint(f"{tiny.runs}/tiny/last.ckpt")["state"]["parts"] == 2


def test_the_trial_leaves_no_trace(tiny):
    """A run that found its number of parts is bit-identical to one with the number set."""
    finals = []
    for name, parts in (("set", 1), ("found", 0)):
        run = engine.Run(
            dataclasses.replace(changed(tiny, "train", accumulate=parts, max_steps=2), name=name)
        )
        run.train()
        finals.append(run.network.state_dict())
    assert all(torch.equal(finals[0][k], v) for k, v in finals[1].items())


def test_out_of_memory_is_one_line(tiny, monkeypatch):
    short_of_memory(monkeypatch, 2)
    with pytest.raises(
        UserError,
        match=r"out of memory at step 1 with 4 images of 64 x 64 at once .*--train\.batch auto",
    ) as caught:
        engine.Run(tiny).train()
    assert "\n" not in str(caught.value)


def test_ohem_chooses_from_the_whole_batch(tiny):
    with pytest.raises(UserError, match=r"train\.accumulate is 2; expected 1 with loss\.ohem"):
        engine.Run(changed(changed(tiny, "train", accumulate=2), "loss", ohem=0.5))
