"""Passes before training that leave no trace: what cannot train says so in one line, before anything is read or written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from cfnseg.config import Model
from cfnseg.errors import UserError, first_line
from cfnseg.ops import stride_of

SIDE = 128  # pixels are enough: even a stage at stride 64 then has more than one cell


def try_model(model: nn.Module, settings: Model, crop: tuple[int, int], images: int) -> None:
    """Run a small batch through ``model`` as training will; weights, buffers and random state stay as they are.

    Args:
        model: as training starts it; left in the mode it was in.
        settings: the model section it was built from, for the message.
        crop: height and width of the training crops.
        images: how many of them a batch norm sees at once.

    Raises:
        UserError: the model cannot train so; the message names the setting to change.
    """
    size = tuple(min(n, SIDE) for n in crop)
    error = _failure(model, size, min(images, 2))
    if error is None:
        error = _other_sizes(model)
    elif images == 1 and _failure(model, size, 2) is None:
        raise UserError(f"model.name {settings.name} with one image at a time: a batch norm would see one value per channel; set "
                        "--train.batch 2 or more, in parts (--train.accumulate) of at least 2 images", code=2) from None
    elif _failure(model, tuple(max(n, SIDE) for n in crop), min(images, 2)) is None:
        raise UserError(f"data.crop {crop[0]} {crop[1]} is too small for model.name {settings.name} with model.encoder "
                        f"{settings.encoder}; set --data.crop {SIDE} {SIDE} or more", code=2) from None
    if error:
        raise UserError(f"model.name {settings.name} does not run with model.encoder {settings.encoder} on images of any size "
                        f"({first_line(error)}); choose another encoder, such as tf_efficientnet_lite0 or resnet50", code=2) from None


def unused_parameters(model: nn.Module, size: tuple[int, int] = (64, 64)) -> list[str]:
    """The parameters that no training step gives a gradient: what an encoder carries and no branch reads.

    All outputs enter the loss at every step, so one backward pass holds for the run. With these frozen, several processes
    need not search the graph for them at each step.

    Args:
        model: a network of this package; its gradients are None afterwards.
        size: (H, W) of the two trial images.

    Returns:
        Names, in the model's order.
    """
    device = next(model.parameters()).device
    with rehearsal(model) as forward:
        output = forward(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, device=device))
        sum(logits.sum() for logits in (output.pixel, output.image, *output.side) if logits is not None).backward()
        return [name for name, parameter in model.named_parameters() if parameter.grad is None]


@contextlib.contextmanager
def rehearsal(model: nn.Module, training: bool = True) -> Iterator[Callable[..., Any]]:
    """A forward pass of ``model`` in training or evaluation mode, for a trial.

    Afterwards buffers, the mode of every part and the random state are as before, and gradients are None.
    """
    device = next(model.parameters()).device
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    modes = {part: part.training for part in model.modules()}
    model.train(training)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield lambda *args: functional_call(model, buffers, args)
    finally:
        model.zero_grad()
        for part, before in modes.items():
            part.training = before


def _failure(model: nn.Module, size: tuple[int, int], images: int) -> Exception | None:
    """What a forward pass in training mode raises, if anything."""
    batch = torch.zeros(images, 3, *size, dtype=torch.uint8, device=next(model.parameters()).device)
    with rehearsal(model) as forward:
        return _raised(lambda: forward(batch))


def _other_sizes(model: nn.Module) -> Exception | None:
    """What a transformer made for one size raises for an image larger than that: a table of positions may end there."""
    encoder = model.encoder
    config = getattr(getattr(encoder, "body", None), "pretrained_cfg", {})
    if not config.get("fixed_input_size"):
        return None
    image = encoder.mean.new_zeros(1, 3, 2 * config["input_size"][1] + encoder.multiple, 32)
    with rehearsal(encoder, training=False) as forward:
        return _raised(lambda: forward(image))


def _raised(forward: Callable[[], object]) -> Exception | None:
    try:
        with torch.no_grad():
            forward()
    except Exception as error:  # a network can fail in any way
        return error
    return None


def try_own_model(model: nn.Module, classes: int, crop: tuple[int, int]) -> None:
    """Run two crops through a user's model as training will; it stays as it is.

    Raises:
        UserError: it fails, or its output is no `cfnseg.models.segmenter.Output` for ``classes`` classes.
    """
    place = next(model.parameters()).device
    images = torch.zeros(2, 3, *crop, dtype=torch.uint8, device=place)
    try:
        with rehearsal(model) as forward, torch.no_grad():
            output = forward(images, torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2, device=place))
        fits = output.pixel.shape[:2] == output.image.shape == (2, classes)
        stride_of(output.pixel, crop)
    except Exception as error:  # a user's code can fail in any way
        raise UserError(f"the model fails on a training batch ({type(error).__name__}: {first_line(error)}); expected "
                        "cfnseg.models.segmenter.Output of forward(images, region)", code=2) from None
    if not fits:
        raise UserError(f"the model's logits are {tuple(output.pixel.shape)} and {tuple(output.image.shape)}; expected "
                        f"(2, {classes}, h, w) and (2, {classes}) for {classes} classes", code=2)
