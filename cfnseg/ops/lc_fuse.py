"""The locally-connected fusion in one pass: upsample each branch, weigh it by place, sum, ReLU.

Backward computes the upsampled branches and the weights read from the grid again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cfnseg.ops.dispatch import run, traced
from cfnseg.ops.lc_reference import lc_fuse_reference, whole


def lc_fuse(
    branches: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    region: Tensor | None,
    size: tuple[int, int],
    relu: bool = True,
) -> Tensor:
    """Fuse side branches by place: f = ReLU(sum_s w_s(place) U_s + b(place)).

    Args:
        branches: S maps (N, K, h_s, w_s), floats of one dtype; U_s is the bilinear upsampling of
            map s to ``size``.
        weight: (S, K, gh, gw), a grid over the full image; cell (a, b) is centred at
            ((a + .5) / gh, (b + .5) / gw), and weights between centres are bilinear.
        bias: (K, gh, gw) on the same grid.
        region: (N, 4) or (1, 4) x0, y0, x1, y1 of the maps in the full image, 1 = full width or
            height; places outside [0, 1] read the border. None = the whole image.
        size: (h, w) of the result.
        relu: False leaves the sum as it is.

    Returns:
        (N, K, h, w) in the branches' dtype, channels-last; sums are in float32, or float64 if the
        weight is. Differentiable once, by branches, weight and bias.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, by the argument's name.

    Example:
        >>> import torch
        >>> from cfnseg.ops import lc_fuse
        >>> fine, coarse = torch.ones(1, 8, 16, 16), torch.ones(1, 8, 8, 8)
        >>> weight = torch.full((2, 8, 3, 4), 0.5)  # 2 branches, 8 channels, a 3 x 4 grid
        >>> fused = lc_fuse([fine, coarse], weight, torch.zeros(8, 3, 4), None, (16, 16))
        >>> fused.shape, fused.mean().item()
        (torch.Size([1, 8, 16, 16]), 1.0)
    """
    count = len(branches)
    if not count or weight.ndim != 4 or len(weight) != count:
        raise ValueError(
            f"weight: expected ({count}, K, gh, gw) for {count} branches, got {tuple(weight.shape)}"
        )
    kind, device, channels = branches[0].dtype, weight.device, weight.shape[1]
    images = branches[0].shape[0]  # not len(), which an exporter would freeze
    if any(b.ndim != 4 or b.shape[:2] != (images, channels) for b in branches):
        shapes = [tuple(b.shape) for b in branches]
        raise ValueError(f"branches: expected maps (N, {channels}, h, w), got {shapes}")
    if any(b.dtype != kind or b.device != device or not kind.is_floating_point for b in branches):
        kinds = [f"{b.dtype} {b.device}" for b in branches]
        raise ValueError(f"branches: expected floats of one dtype on {device}, got {kinds}")
    if bias.shape != weight.shape[1:] or bias.device != device:
        found = f"{tuple(bias.shape)} on {bias.device}"
        raise ValueError(f"bias: expected {tuple(weight.shape[1:])} on {device}, got {found}")
    if region is not None and region.shape != (images, 4) and region.shape != (1, 4):
        raise ValueError(f"region: expected ({images}, 4) or (1, 4), got {tuple(region.shape)}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size: expected (h, w) of at least 1, got {tuple(size)}")
    size = size[0], size[1]  # a list, or a torch.Size
    if traced():
        return lc_fuse_reference(branches, weight, bias, region, size, relu)
    region = whole(device, weight.dtype) if region is None else region.to(device)
    branches = [b.contiguous(memory_format=torch.channels_last) for b in branches]
    return _fuse(branches, weight, bias, region, size, relu)


def _run(function: str, branches: Sequence[Tensor], weight: Tensor, *args: Any) -> Any:
    """``function`` of the version that fits; either takes the other's result.

    The kernels lack float64, so a weight in it decides.
    """
    values = weight if weight.dtype == torch.float64 else branches[0]
    return run("lc", function, "lc_fuse", values, *args)


# A compiler sees each operation as one node. Traced, its strips would be unrolled.
INPUTS = "Tensor[] branches, Tensor weight, Tensor bias, Tensor region"


@torch.library.custom_op(
    "cfnseg::lc_fuse", mutates_args=(), schema=f"({INPUTS}, SymInt[] size, bool relu) -> Tensor"
)
def _fuse(
    branches: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    region: Tensor,
    size: Sequence[int],
    relu: bool,
) -> Tensor:
    return _run("forward", branches, weight, branches, weight, bias, region, tuple(size), relu)


@_fuse.register_fake
def _(
    branches: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    region: Tensor,
    size: Sequence[int],
    relu: bool,
) -> Tensor:
    return _empty(branches[0], (branches[0].shape[0], weight.shape[1], *size))


@torch.library.custom_op(
    "cfnseg::lc_fuse_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor result, {INPUTS}, bool relu) -> Tensor[]",
)
def _fuse_backward(
    grad: Tensor, result: Tensor, branches: Sequence[Tensor], weight: Tensor, *rest: Any
) -> list[Tensor]:
    weight_grad, bias_grad, *grads = _run(
        "backward", branches, weight, grad, result, branches, weight, *rest
    )
    # an operation's results may share no memory
    grids = (x.clone(memory_format=torch.contiguous_format) for x in (weight_grad, bias_grad))
    return [*grids, *grads]


@_fuse_backward.register_fake
def _(
    grad: Tensor,
    result: Tensor,
    branches: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    *_: Any,
) -> list[Tensor]:
    grids = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (weight, bias))
    return [*grids, *(_empty(b, b.shape) for b in branches)]


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    branches, weight, bias, region, _, ctx.relu = inputs
    ctx.save_for_backward(output, weight, bias, region, *branches)


@once_differentiable
def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    result, weight, bias, region, *branches = ctx.saved_tensors
    return tuple(_fuse_backward(grad, result, branches, weight, bias, region, ctx.relu))


def _derive(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    weight_grad, bias_grad, *grads = _gradients(ctx, grad)
    return grads, weight_grad, bias_grad, None, None, None


_fuse.register_autograd(_derive, setup_context=_keep)
