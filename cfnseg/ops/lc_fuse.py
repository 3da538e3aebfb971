"""The locally-connected fusion in one pass: upsample every branch, weigh it by its place, sum, add the bias, ReLU.

`lc_fuse_reference` is the composition of torch operations that defines it. `lc_fuse` gives the same values and gradients
sample by sample, so that upsampled branches and weights read from the grid live in the cache only and nothing but the
inputs and the result is kept for backward, which computes them again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

WHOLE = (0.0, 0.0, 1.0, 1.0)


def hat(start: Tensor, stop: Tensor, cells: int, knots: int) -> Tensor:
    """Linear interpolation as a matrix: row i holds the weights of the ``knots`` grid cells at cell i of an interval.

    Args:
        start, stop: (N,) ends of the interval, 0..1 over the grid; outside, the border cell counts alone.
        cells: cells of equal length in the interval, read at their centres.
        knots: grid cells, centred at (a + .5) / knots.

    Returns:
        (N, cells, knots), rows that sum to 1.
    """
    centres = (torch.arange(cells, device=start.device, dtype=start.dtype) + 0.5) / cells
    places = (start[:, None] + (stop - start)[:, None] * centres) * knots - 0.5
    places = places.clamp(0, knots - 1)
    return (1 - (places[..., None] - torch.arange(knots, device=start.device, dtype=start.dtype)).abs()).clamp_min(0)


def read_grid(grid: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(K, gh, gw) grid values at (h, w) places by their `hat` matrices (h, gh) and (w, gw): (K, h, w), channels-last."""
    knots = grid.permute(1, 2, 0)
    across = (rows @ knots.flatten(1)).view(len(rows), *knots.shape[1:])
    return torch.matmul(columns, across).permute(2, 0, 1)


def _read_backward(grad: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Gradient of `read_grid` to the grid from a (K, h, w) channels-last gradient."""
    across = torch.matmul(columns.T, grad.permute(1, 2, 0))
    return (rows.T @ across.flatten(1)).view(rows.shape[1], columns.shape[1], -1).permute(2, 0, 1)


def upsample(branch: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear upsampling of (N, K, h_s, w_s) to ``size``, pixel centres aligned; the identity at that size."""
    if branch.shape[-2:] == size:
        return branch
    return F.interpolate(branch, size=size, mode="bilinear", align_corners=False)


def lc_fuse_reference(branches: Sequence[Tensor], weight: Tensor, bias: Tensor, region: Tensor | None, size: tuple[int, int],
                      relu: bool = True) -> Tensor:
    """See `lc_fuse`; torch operations alone, each with its result kept for backward."""
    rows, columns = _hats(weight, region, size)
    fused = []
    for n in range(len(branches[0])):
        r, c = rows[n % len(rows)], columns[n % len(rows)]
        parts = [read_grid(w, r, c) * upsample(b[n : n + 1], size)[0] for w, b in zip(weight, branches)]
        fused.append(sum(parts) + read_grid(bias, r, c))
    return F.relu(torch.stack(fused)) if relu else torch.stack(fused)


def _hats(weight: Tensor, region: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    if region is None:
        region = weight.new_tensor([WHOLE])
    x0, y0, x1, y1 = region.to(weight).unbind(1)
    return hat(y0, y1, size[0], weight.shape[2]), hat(x0, x1, size[1], weight.shape[3])


class _Fuse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, bias, region, size, relu, *branches):
        rows, columns = _hats(weight, region, size)
        images, width = branches[0].shape[:2]
        result = torch.empty(images, width, *size, dtype=branches[0].dtype, device=weight.device,
                             memory_format=torch.channels_last)
        with torch.autocast(weight.device.type, enabled=False):
            weights = None
            for n in range(images):
                if weights is None or len(rows) > 1:
                    weights = [read_grid(g, rows[n], columns[n]) for g in (bias, *weight)]
                total = weights[0].clone() if len(rows) == 1 else weights[0]
                for branch, w in zip(branches, weights[1:]):
                    total.addcmul_(upsample(branch[n : n + 1], size)[0].to(total.dtype), w)
                result[n] = total.relu_() if relu else total
        ctx.save_for_backward(weight, rows, columns, result, *branches)
        ctx.size, ctx.relu = size, relu
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        weight, rows, columns, result, *branches = ctx.saved_tensors
        kind = weight.dtype
        grad = grad.contiguous(memory_format=torch.channels_last)
        weight_grad = torch.zeros_like(weight)
        bias_grad = torch.zeros_like(weight[0])
        branch_grads = [torch.empty_like(b) for b in branches]
        for n in range(len(grad)):
            r, c = rows[n % len(rows)], columns[n % len(rows)]
            part = grad[n].to(kind)
            if ctx.relu:
                part = part * (result[n] > 0)
            bias_grad += _read_backward(part, r, c)
            for s, branch in enumerate(branches):
                one = branch[n : n + 1].to(kind)
                up = upsample(one, ctx.size)
                weight_grad[s] += _read_backward(up[0] * part, r, c)
                back = (read_grid(weight[s], r, c) * part)[None]
                if one.shape[-2:] != ctx.size:
                    back = torch.ops.aten.upsample_bilinear2d_backward(back, ctx.size, one.shape, False, None, None)
                branch_grads[s][n] = back[0]
        return weight_grad, bias_grad, None, None, None, *branch_grads


def lc_fuse(branches: Sequence[Tensor], weight: Tensor, bias: Tensor, region: Tensor | None, size: tuple[int, int],
            relu: bool = True) -> Tensor:
    """Fuse side branches with weights that depend on the place: f = ReLU(sum_s w_s(place) U_s + b(place)).

    Args:
        branches: S maps (N, K, h_s, w_s); U_s is their bilinear upsampling to ``size``.
        weight: (S, K, gh, gw), a grid over the full image; cell (a, b) is centred at ((a + .5) / gh, (b + .5) / gw) and the
            weight between centres is bilinear.
        bias: (K, gh, gw) on the same grid.
        region: (N, 4) x0, y0, x1, y1 of the maps in the full image, 1 = full width or height; places outside [0, 1] read
            the border. None = the whole image.
        size: (h, w) of the result.
        relu: False leaves the sum as it is.

    Returns:
        (N, K, h, w) in the branches' dtype, channels-last; sums are in the weight's dtype.

    Raises:
        ValueError: shapes that do not fit, by the argument's name.
    """
    if len(weight) != len(branches) or any(b.ndim != 4 or b.shape[:2] != (len(branches[0]), weight.shape[1]) for b in branches):
        raise ValueError(f"branches: expected {len(weight)} maps (N, {weight.shape[1]}, h, w), got {[tuple(b.shape) for b in branches]}")
    if bias.shape != weight.shape[1:]:
        raise ValueError(f"bias: expected {tuple(weight.shape[1:])}, got {tuple(bias.shape)}")
    if region is not None and region.shape != (len(branches[0]), 4) and region.shape != (1, 4):
        raise ValueError(f"region: expected ({len(branches[0])}, 4) or (1, 4), got {tuple(region.shape)}")
    branches = [b.contiguous(memory_format=torch.channels_last) for b in branches]
    return _Fuse.apply(weight, bias, region, tuple(size), relu, *branches)
