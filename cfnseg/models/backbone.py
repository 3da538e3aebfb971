"""timm backbones: a dry run without memory finds how each takes images of any size."""

from __future__ import annotations

import difflib
import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import timm
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from cfnseg.errors import UserError, first_line

# timm's names for "a transformer takes other sizes than its own"; most backbones know neither
FLEXIBLE = ({"strict_img_size": False}, {"dynamic_img_size": True}, {})
LOSS = 4  # cells that a map may lack: unpadded convolutions (Inception) lose some at the border

ANOTHER = "choose another, such as tf_efficientnet_lite0, resnet50 or swin_tiny_patch4_window7_224"


@dataclass(frozen=True)
class Fit:
    """How a backbone is built and fed.

    Attributes:
        settings: arguments of ``timm.create_model``.
        multiple: image sides must be multiples of it.
        channels_last: maps are (N, h, w, C).
        exact: a map at stride s of an image with height H has H / s rows; else the border lacks
            some.
        reductions: output stride of each stage, without dilation.
    """

    settings: dict[str, object]
    multiple: int
    channels_last: bool
    exact: bool
    reductions: tuple[int, ...]


def backbone(name: str, **settings) -> nn.Module:
    """timm's ``features_only`` model ``name`` with random weights; timm's errors pass through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body = timm.create_model(name, features_only=True, **settings)
    for part in body.modules():  # some transformers refuse other sizes in their first layer only
        if getattr(part, "strict_img_size", False):
            part.strict_img_size = False
    return body


@functools.lru_cache(maxsize=64)
def fit(name: str, output_stride: int = 32) -> Fit:
    """How to build ``name`` for images of any size.

    Args:
        name: a timm model name.
        output_stride: 8 or 16 dilates the later stages.

    Raises:
        UserError: an unknown name (with the nearest), no stages, no dilation, or a fixed image
            size.
    """
    what = f"model.encoder {name!r}"
    if ":" in name:  # timm would fetch and run a configuration from a hub
        raise UserError(f"{what}: expected the name of a timm backbone, not an address", code=2)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UserError(f"{what} is not the name of a timm backbone{hint}", code=2)
    builds, dilation = [], {"output_stride": output_stride} if output_stride < 32 else {}
    for flexible in FLEXIBLE:
        try:
            with torch.device("meta"):
                builds.append((dilation | flexible, backbone(name, **dilation, **flexible).eval()))
        except Exception as error:  # backbones without stages fail in many ways
            reason = first_line(error)
    cannot = f"cannot be dilated to an output stride of {output_stride}, which this model needs"
    if not builds:
        cannot = cannot if dilation else f"is not a timm backbone with stages ({reason})"
        raise UserError(f"{what} {cannot}; {ANOTHER}", code=2)
    body = builds[0][1]
    reductions = fit(name).reductions if dilation else tuple(body.feature_info.reduction())
    if not all(isinstance(r, int) and r > 0 and r & (r - 1) == 0 for r in reductions):
        raise UserError(
            f"{what} has stages at strides {reductions}, expected powers of two; {ANOTHER}", code=2
        )
    _, height, width = body.pretrained_cfg.get("input_size") or (3, 224, 224)
    strides = [min(r, output_stride) for r in reductions] if dilation else reductions
    for multiple in sorted({max(32, reductions[-1]), 64, 128, math.lcm(32, height, width)}):
        for settings, body in builds if multiple % reductions[-1] == 0 else ():
            if layout := _layout(body, strides, multiple):
                return Fit(settings, multiple, *layout, reductions)
    if not dilation:
        only = f"takes images of {height} x {width} only"
        cannot = f"{only}, and training and inference need any size"
    raise UserError(f"{what} {cannot}; {ANOTHER}", code=2)


def _layout(body: nn.Module, strides: Sequence[int], multiple: int) -> tuple[bool, bool] | None:
    """Are the maps (N, h, w, C), and exact as in `Fit`? None: the backbone gives no such maps.

    The images are two whose sides are multiples of ``multiple``.
    """
    found = set()
    try:
        for size in ((3 * multiple, 2 * multiple), (multiple, 5 * multiple)):
            with torch.device("meta"), torch.no_grad():
                maps = body(torch.empty(1, 3, *size))
            channels = body.feature_info.channels()
            for stage, count, stride in zip(maps, channels, strides, strict=True):
                found.add(_form(stage, count, tuple(n // stride for n in size)))
    except Exception:  # each backbone refuses a size in its own way
        return None
    if None in found or len({last for last, _ in found}) != 1:
        return None
    return next(iter(found))[0], all(exact for _, exact in found)


def _form(stage: Tensor, channels: int, cells: tuple[int, ...]) -> tuple[bool, bool] | None:
    """Is a map (1, h, w, C), and are h, w exactly ``cells``? None: more than LOSS are missing."""
    if stage.ndim != 4:
        return None
    for last, own, shape in ((False, 1, stage.shape[2:]), (True, 3, stage.shape[1:3])):
        near = all(max(1, n - LOSS) <= k <= n for k, n in zip(shape, cells))
        if near and stage.shape[own] == channels:
            return last, tuple(shape) == cells
    return None


def constant_padding(body: nn.Module) -> nn.Module:
    """Give each TensorFlow-style "same" convolution of ``body`` a constant padding.

    timm derives the padding from each input's size. It is constant where the stride divides the
    size, and a traced size then stays a simple expression: with timm's, an export takes minutes.
    """
    for part in body.modules():
        if type(part) is Conv2dSame:
            part.__class__ = _Padded
    return body


class _Padded(Conv2dSame):
    """A "same" convolution for (N, C, h, w) whose h, w are multiples of the stride."""

    def forward(self, x: Tensor) -> Tensor:
        around = []
        for k, s, d in zip(self.kernel_size[::-1], self.stride[::-1], self.dilation[::-1]):
            total = max((k - 1) * d + 1 - s, 0)
            around += [total // 2, total - total // 2]
        return self._conv_forward(F.pad(x, around), self.weight, self.bias)
