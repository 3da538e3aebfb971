"""timm backbones: how each one is built so that it takes images of any size, found by a dry run without memory."""

from __future__ import annotations

import difflib
import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn

from cfnseg.errors import UserError, first_line

# what timm calls it when a transformer built for one size takes others; most backbones know neither
FLEXIBLE = ({"strict_img_size": False}, {"dynamic_img_size": True}, {})
LOSS = 4  # cells that a map may lack: convolutions without padding (Inception) lose some at the border

ANOTHER = "choose another encoder, such as tf_efficientnet_lite0, resnet50 or swin_tiny_patch4_window7_224"


@dataclass(frozen=True)
class Fit:
    """How a backbone is built and fed.

    Attributes:
        settings: arguments of ``timm.create_model``.
        multiple: image sides must be multiples of it.
        channels_last: its maps are (N, h, w, C).
        exact: a map at stride s of an image with height H has H / s rows; else some at the border are missing.
        reductions: output stride of each stage, without dilation.
    """

    settings: dict[str, object]
    multiple: int
    channels_last: bool
    exact: bool
    reductions: tuple[int, ...]


def backbone(name: str, **settings) -> nn.Module:
    """The timm ``features_only`` model called ``name``, with random weights; any error of timm's passes."""
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
        UserError: no such model (with the nearest names), no stages, no dilation, or images of one size only.
    """
    if ":" in name:  # timm would fetch and run a configuration from a hub
        raise UserError(f"model.encoder {name!r}: expected the name of a timm backbone, not an address", code=2)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UserError(f"model.encoder {name!r} is not the name of a timm backbone{hint}", code=2)
    builds, dilation = [], {"output_stride": output_stride} if output_stride < 32 else {}
    for flexible in FLEXIBLE:
        try:
            with torch.device("meta"):
                builds.append((dilation | flexible, backbone(name, **dilation, **flexible).eval()))
        except Exception as error:  # backbones without stages fail in many ways, and most know no such argument
            reason = first_line(error)
    cannot = f"model.encoder {name!r} cannot be dilated to an output stride of {output_stride}, which this model needs"
    if not builds and not dilation:
        cannot = f"model.encoder {name!r} is not a timm backbone with stages ({reason})"
    if not builds:
        raise UserError(f"{cannot}; {ANOTHER}", code=2)
    reductions = fit(name).reductions if dilation else tuple(builds[0][1].feature_info.reduction())
    if not all(isinstance(r, int) and r > 0 and r & (r - 1) == 0 for r in reductions):
        raise UserError(f"model.encoder {name!r} has stages at strides {reductions}, expected powers of two; {ANOTHER}", code=2)
    own = builds[0][1].pretrained_cfg.get("input_size") or (3, 224, 224)
    multiples = sorted({max(32, reductions[-1]), 64, 128, math.lcm(32, *own[1:])})
    for multiple in (m for m in multiples if m % reductions[-1] == 0):
        for settings, body in builds:
            forms = _forms(body, [min(r, output_stride) for r in reductions] if dilation else reductions, multiple)
            if forms and None not in forms and len({last for last, _ in forms}) == 1:
                return Fit(settings, multiple, next(iter(forms))[0], all(exact for _, exact in forms), reductions)
    if not dilation:
        cannot = f"model.encoder {name!r} takes images of {own[1]} x {own[2]} only, and training and inference need any size"
    raise UserError(f"{cannot}; {ANOTHER}", code=2)


def _forms(body: nn.Module, strides: Sequence[int], multiple: int) -> set[tuple[bool, bool] | None]:
    """The `_form` of each map, of images whose sides are multiples of ``multiple``; none if the backbone refuses them."""
    forms = set()
    try:
        for size in ((3 * multiple, 2 * multiple), (multiple, 5 * multiple)):
            with torch.device("meta"), torch.no_grad():
                maps = body(torch.empty(1, 3, *size))
            channels = body.feature_info.channels()
            forms |= {_form(x, c, tuple(n // s for n in size)) for x, c, s in zip(maps, channels, strides, strict=True)}
    except Exception:  # a backbone says in its own way that a size is not its own
        return set()
    return forms


def _form(stage: Tensor, channels: int, size: tuple[int, ...]) -> tuple[bool, bool] | None:
    """Is a map (1, h, w, C), and is it of ``size``? None: it is no map of ``size`` less up to LOSS cells."""
    for last, shape in ((False, stage.shape[2:]), (True, stage.shape[1:3])):
        fits = stage.ndim == 4 and all(max(1, n - LOSS) <= k <= n for k, n in zip(shape, size))
        if fits and stage.shape[3 if last else 1] == channels:
            return last, tuple(shape) == size
    return None
