"""What the package expects of a segmentation model, and defaults for a plain module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from cfnseg.data.bands import Bands

PARTS = {
    "encoder": "encoder",
    "branches": "branches",
    "context": "branches",
    "branch": "branches",
    "decoder": "decoder",
    "companions": "companions",
}  # a model's attribute -> its part in the parameter table

ATTRIBUTES = ("encoder", "test_scale", "side_fades", "parameter_table")  # of `Segmenter`


class Output(NamedTuple):
    """What every model here returns.

    Attributes:
        pixel: (N, C, ceil(H / s), ceil(W / s)) class logits at the stride s of the finest stage.
            Cell i covers pixels s*i to s*i + s - 1. `cfnseg.ops` upsamples them without storing
            (N, C, H, W). None in classification.
        image: (N, C) logits. Segmentation: multi-label, is the class anywhere in the image?
            Classification: single-label.
        side: logits for the training loss alone, shaped like ``pixel`` (classification: like
            ``image``), each at its own stride.

    Example:
        >>> import cfnseg, torch
        >>> cfnseg.Output(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3)).side
        ()
    """

    pixel: Tensor | None
    image: Tensor
    side: tuple[Tensor, ...] = ()


class Segmenter(Protocol):
    """A segmentation model as the rest of the package sees it; `as_segmenter` adapts a module.

    Attributes:
        encoder: maps images to stage maps. Training reads ``encoder.mean`` (the colour of padding),
            a weights file ``encoder.normalisation``; inference reads neither. `bands_of` reads
            ``encoder.bands``.
        test_scale: factor on image sides at validation and inference.
        side_fades: the weight of the side outputs' loss falls linearly to 0 over the run.
    """

    encoder: nn.Module
    test_scale: float
    side_fades: bool

    def __call__(self, images: Tensor, region: Tensor | None = None) -> Output:
        """Predict; see `cfnseg.models.cfn.CFN.forward`."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As `torch.nn.Module.parameters`."""

    def parameter_table(self) -> dict[str, int]:
        """Number of parameters by part, and their total."""


class Network(nn.Module):
    """Base of the models here: `Segmenter` without `forward`.

    Args:
        test_scale: see `Segmenter`.
    """

    side_fades = False

    def __init__(self, test_scale: float = 1.0) -> None:
        super().__init__()
        self.test_scale = test_scale

    def parameter_table(self) -> dict[str, int]:
        """Number of parameters by part (encoder, branches, fusion, heads, ...), and their total."""
        table = {"encoder": 0, "branches": 0, "fusion": 0}
        for name, parameter in self.named_parameters():
            part = PARTS.get(name.partition(".")[0], "fusion" if ".fusion." in name else "heads")
            table[part] = table.get(part, 0) + parameter.numel()
        return table | {"total": sum(table.values())}


class _Adapter(Network):
    """A `Segmenter` around a module; attributes of `Segmenter` that the module has are kept."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.encoder = nn.Identity()
        for name in ATTRIBUTES:
            if hasattr(module, name):
                setattr(self, name, getattr(module, name))

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        return self.module(images, region)


def as_segmenter(module: nn.Module) -> Segmenter:
    """``module`` for inference and evaluation: itself if it is a `Segmenter`, else with defaults.

    Args:
        module: its ``forward(images, region)`` returns `Output`; a compiled module will do.

    Returns:
        A `Segmenter`. Defaults: test_scale 1, side_fades False, an encoder without normalisation.
    """
    # hasattr, not isinstance: a protocol's isinstance misses what a compiled module passes on
    whole = all(hasattr(module, name) for name in ATTRIBUTES)
    return cast(Segmenter, module if whole else _Adapter(module))


def bands_of(model: nn.Module) -> Bands | None:
    """The bands of the images that a model, or an encoder, takes; None for 8-bit RGB."""
    return getattr(getattr(model, "encoder", model), "bands", None)


def blank_images(
    model: nn.Module, shape: Sequence[int], device: torch.device | None = None
) -> Tensor:
    """Zeros (N, C, H, W) of the channels and type that a model takes; ``shape`` is (N, H, W)."""
    bands = bands_of(model)
    channels, kind = (len(bands), getattr(torch, bands.type)) if bands else (3, torch.uint8)
    return torch.zeros(shape[0], channels, *shape[1:], dtype=kind, device=device)


@contextlib.contextmanager
def in_mode(model: nn.Module, training: bool = False) -> Iterator[None]:
    """Training or evaluation mode; afterwards each part is in the mode it was in.

    A user's model may keep parts, such as frozen batch norms, in evaluation mode.
    """
    modes = {part: part.training for part in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for part, before in modes.items():
            part.training = before
