"""The locally-connected fusion in one pass: upsample every branch, weigh it by its place, sum, add the bias, ReLU.

Neither upsampled branches nor weights read from the grid are stored for backward, which computes them again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cfnseg.ops.dispatch import run, traced
from cfnseg.ops.lc_fuse.reference import lc_fuse_reference
from cfnseg.ops.linear import hat, read_grid, upsample, whole

__all__ = ["hat", "lc_fuse", "lc_fuse_reference", "read_grid", "upsample"]


def lc_fuse(branches: Sequence[Tensor], weight: Tensor, bias: Tensor, region: Tensor | None, size: tuple[int, int],
            relu: bool = True) -> Tensor:
    """Fuse side branches with weights that depend on the place: f = ReLU(sum_s w_s(place) U_s + b(place)).

    Args:
        branches: S maps (N, K, h_s, w_s), float of one dtype; U_s is their bilinear upsampling to ``size``.
        weight: (S, K, gh, gw), a grid over the full image; cell (a, b) is centred at ((a + .5) / gh, (b + .5) / gw) and the
            weight between centres is bilinear.
        bias: (K, gh, gw) on the same grid.
        region: (N, 4) or (1, 4) x0, y0, x1, y1 of the maps in the full image, 1 = full width or height; places outside
            [0, 1] read the border. None = the whole image.
        size: (h, w) of the result.
        relu: False leaves the sum as it is.

    Returns:
        (N, K, h, w) in the branches' dtype, channels-last; sums are in float32, or float64 where the weight is. Differentiable
        once, by branches, weight and bias.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, by the argument's name.
    """
    if not branches or weight.ndim != 4 or len(weight) != len(branches):
        raise ValueError(f"weight: expected ({len(branches)}, K, gh, gw) for {len(branches)} branches, got {tuple(weight.shape)}")
    first = branches[0]
    images = first.shape[0]  # not len(), which an exporter would freeze
    if any(b.ndim != 4 or b.shape[:2] != (images, weight.shape[1]) for b in branches):
        raise ValueError(f"branches: expected maps (N, {weight.shape[1]}, h, w), got {[tuple(b.shape) for b in branches]}")
    if any(b.dtype != first.dtype or b.device != weight.device or not b.is_floating_point() for b in branches):
        raise ValueError(f"branches: expected floats of one dtype on {weight.device}, got {[f'{b.dtype} {b.device}' for b in branches]}")
    if bias.shape != weight.shape[1:] or bias.device != weight.device:
        raise ValueError(f"bias: expected {tuple(weight.shape[1:])} on {weight.device}, got {tuple(bias.shape)} on {bias.device}")
    if region is not None and region.shape != (images, 4) and region.shape != (1, 4):
        raise ValueError(f"region: expected ({images}, 4) or (1, 4), got {tuple(region.shape)}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size: expected (h, w) of at least 1, got {tuple(size)}")
    size = tuple(size)
    if traced():
        return lc_fuse_reference(branches, weight, bias, region, size, relu)
    if region is None:
        region = whole(weight.device, weight.dtype)
    branches = [b.contiguous(memory_format=torch.channels_last) for b in branches]
    return _fuse(branches, weight, bias, region.to(weight.device), size, relu)


def _run(function: str, branches: Sequence[Tensor], weight: Tensor, *args):
    """``function`` of the version that fits; either version takes the other's result. The kernels lack 64 bits."""
    return run(__name__, function, "lc_fuse", weight if weight.dtype == torch.float64 else branches[0], *args)


# A compiler sees the operations whole: traced, the strips would be unrolled.
@torch.library.custom_op("cfnseg::lc_fuse", mutates_args=(), schema=(
    "(Tensor[] branches, Tensor weight, Tensor bias, Tensor region, SymInt[] size, bool relu) -> Tensor"))
def _fuse(branches, weight, bias, region, size, relu):
    return _run("forward", branches, weight, branches, weight, bias, region, tuple(size), relu)


@_fuse.register_fake
def _(branches, weight, bias, region, size, relu):
    return _empty(branches[0], (branches[0].shape[0], weight.shape[1], *size))


@torch.library.custom_op("cfnseg::lc_fuse_backward", mutates_args=(), schema=(
    "(Tensor grad, Tensor result, Tensor[] branches, Tensor weight, Tensor bias, Tensor region, bool relu) -> Tensor[]"))
def _fuse_backward(grad, result, branches, weight, bias, region, relu):
    weight_grad, bias_grad, *grads = _run("backward", branches, weight, grad, result, branches, weight, bias, region, relu)
    # an operation's results may share no memory
    return [*(x.clone(memory_format=torch.contiguous_format) for x in (weight_grad, bias_grad)), *grads]


@_fuse_backward.register_fake
def _(grad, result, branches, weight, bias, region, relu):
    grids = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (weight, bias)]
    return [*grids, *(_empty(b, b.shape) for b in branches)]


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _keep(ctx, inputs, output):
    branches, weight, bias, region, _, ctx.relu = inputs
    ctx.save_for_backward(output, weight, bias, region, *branches)


@once_differentiable
def _gradients(ctx, grad):
    result, weight, bias, region, *branches = ctx.saved_tensors
    return tuple(_fuse_backward(grad, result, branches, weight, bias, region, ctx.relu))


def _derive(ctx, grad):
    weight_grad, bias_grad, *grads = _gradients(ctx, grad)
    return grads, weight_grad, bias_grad, None, None, None


_fuse.register_autograd(_derive, setup_context=_keep)
