"""Trial passes before training: a model that cannot train fails in one line and leaves no trace."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from cfnseg.config import Model
from cfnseg.errors import UserError, first_line
from cfnseg.models.backbone import ANOTHER
from cfnseg.models.encoder import Encoder
from cfnseg.models.segmenter import blank_images, in_mode
from cfnseg.ops import stride_of

SIDE = 128  # pixels: even a stage at stride 64 then has more than one cell


def try_model(model: nn.Module, settings: Model, crop: tuple[int, int], images: int) -> None:
    """Run a small batch through ``model`` as training will.

    Weights, buffers, mode and random state stay as they are.

    Args:
        model: as training starts it.
        settings: the model section it was built from, for the message.
        crop: (H, W) of training crops.
        images: how many images a batch norm sees at once.

    Raises:
        UserError: the model cannot train; the message names the setting to change.
    """
    name = f"model.name {settings.name}"
    few, small = min(images, 2), [min(n, SIDE) for n in crop]
    error = _failure(model, few, small)
    if error is None:
        error = _size_limit(model)
    elif images == 1 and _failure(model, 2, small) is None:
        raise UserError(
            f"{name} with one image at a time: a batch norm would see one value per channel; set "
            "--train.batch 2 or more, in parts (--train.accumulate) of at least 2 images",
            code=2,
        )
    elif _failure(model, few, [max(n, SIDE) for n in crop]) is None:
        raise UserError(
            f"data.crop {crop[0]} {crop[1]} is too small for {name} with model.encoder "
            f"{settings.encoder}; set --data.crop {SIDE} {SIDE} or more",
            code=2,
        )
    if error:
        raise UserError(
            f"{name} does not run with model.encoder {settings.encoder} on images of any size "
            f"({first_line(error)}); {ANOTHER}",
            code=2,
        )


def unused_parameters(model: nn.Module, size: tuple[int, int] = (64, 64)) -> list[str]:
    """Names of the parameters that no training step gives a gradient, in the model's order.

    They are what an encoder has and no branch reads. Every output enters the loss at every step, so
    one backward pass decides for the run. With these frozen, several processes need not search the
    graph at each step.

    Args:
        model: a network of this package; its gradients are None afterwards.
        size: (H, W) of the two trial images.
    """
    with rehearsal(model) as forward:
        device = next(model.parameters()).device
        noise = torch.randint(0, 256, (2, 1, *size), dtype=torch.uint8, device=device)
        images = blank_images(model, (2, *size), device)
        output = forward((images.float() + noise).to(images.dtype))
        outputs = (output.pixel, output.image, *output.side)
        sum(logits.sum() for logits in outputs if logits is not None).backward()
        return [name for name, p in model.named_parameters() if p.grad is None]


@contextlib.contextmanager
def rehearsal(model: nn.Module, training: bool = True) -> Iterator[Callable[..., Any]]:
    """A forward pass of ``model`` in training or evaluation mode, for a trial.

    Afterwards buffers, modes and random state are as before, and gradients are None.
    """
    device = next(model.parameters()).device
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    draws = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with in_mode(model, training), draws:
        try:
            yield lambda *args: functional_call(model, buffers, args)
        finally:
            model.zero_grad()


def _failure(
    model: nn.Module, images: int, size: Sequence[int], training: bool = True
) -> Exception | None:
    """What a forward pass of black images of ``size`` raises, or None."""
    device = next(model.parameters()).device
    try:
        with rehearsal(model, training) as forward, torch.no_grad():
            forward(blank_images(model, (images, *size), device))
    except Exception as error:  # a network can fail in any way
        return error
    return None


def try_own_model(model: nn.Module, classes: int, crop: tuple[int, int]) -> None:
    """Run two crops through a user's model as training will; it stays as it is.

    Raises:
        UserError: it fails, or its output is no `cfnseg.models.segmenter.Output` for that many
            classes.
    """
    place = next(model.parameters()).device
    images = torch.zeros(2, 3, *crop, dtype=torch.uint8, device=place)
    try:
        with rehearsal(model) as forward, torch.no_grad():
            output = forward(images, torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2, device=place))
        fits = output.pixel.shape[:2] == output.image.shape == (2, classes)
        stride_of(output.pixel, crop)
    except Exception as error:  # a user's code can fail in any way
        raise UserError(
            f"the model fails on a training batch ({type(error).__name__}: {first_line(error)}); "
            "expected cfnseg.models.segmenter.Output of forward(images, region)",
            code=2,
        ) from None
    if not fits:
        raise UserError(
            f"the model's logits are {tuple(output.pixel.shape)} and {tuple(output.image.shape)}; "
            f"expected (2, {classes}, h, w) and (2, {classes}) for {classes} classes",
            code=2,
        )


def _size_limit(model: nn.Module) -> Exception | None:
    """What a fixed-size transformer raises for a larger image: its positions may end there."""
    encoder = model.encoder
    if not isinstance(encoder, Encoder) or not encoder.body.pretrained_cfg.get("fixed_input_size"):
        return None
    height = 2 * encoder.body.pretrained_cfg["input_size"][1] + encoder.multiple
    return _failure(encoder, 1, (height, 32), training=False)
