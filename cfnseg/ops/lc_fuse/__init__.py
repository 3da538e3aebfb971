"""The locally-connected fusion in one pass: upsample every branch, weigh it by its place, sum, add the bias, ReLU.

Neither upsampled branches nor weights read from the grid are stored for backward, which computes them again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cfnseg.ops.dispatch import version_for
from cfnseg.ops.lc_fuse.lean import LeanFuse
from cfnseg.ops.lc_fuse.reference import lc_fuse_reference
from cfnseg.ops.linear import hat, read_grid, upsample

__all__ = ["hat", "lc_fuse", "lc_fuse_reference", "read_grid", "upsample"]


@torch.compiler.disable  # a compiler would unroll the strips
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
    if any(b.ndim != 4 or b.shape[:2] != (len(first), weight.shape[1]) for b in branches):
        raise ValueError(f"branches: expected maps (N, {weight.shape[1]}, h, w), got {[tuple(b.shape) for b in branches]}")
    if any(b.dtype != first.dtype or b.device != weight.device or not b.is_floating_point() for b in branches):
        raise ValueError(f"branches: expected floats of one dtype on {weight.device}, got {[f'{b.dtype} {b.device}' for b in branches]}")
    if bias.shape != weight.shape[1:] or bias.device != weight.device:
        raise ValueError(f"bias: expected {tuple(weight.shape[1:])} on {weight.device}, got {tuple(bias.shape)} on {bias.device}")
    if region is not None and region.shape != (len(first), 4) and region.shape != (1, 4):
        raise ValueError(f"region: expected ({len(first)}, 4) or (1, 4), got {tuple(region.shape)}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size: expected (h, w) of at least 1, got {tuple(size)}")
    name, size = version_for(weight), tuple(size)
    if name == "reference":
        return lc_fuse_reference(branches, weight, bias, region, size, relu)
    region = weight.new_tensor([[0, 0, 1, 1]]) if region is None else region.to(weight.device)
    branches = [b.contiguous(memory_format=torch.channels_last) for b in branches]
    if name == "triton":
        from cfnseg.ops.lc_fuse.kernels import TritonFuse

        return TritonFuse.apply(weight, bias, region, size, relu, *branches)
    return LeanFuse.apply(weight, bias, region, size, relu, *branches)
