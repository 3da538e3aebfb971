"""The locally-connected fusion as torch operations define it, and linear interpolation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def places(start: Tensor, stop: Tensor, cells: int, knots: int) -> Tensor:
    """(N, cells) places, in knots, of the centres of ``cells`` equal cells of an interval.

    Args:
        start, stop: (N,) ends of the interval, 0..1 over the axis; places outside move to the
            border knot.
        cells: cells of equal length in the interval.
        knots: knots of the axis, centred at (a + .5) / knots.
    """
    centres = (torch.arange(cells, device=start.device, dtype=start.dtype) + 0.5) / cells
    at = (start[:, None] + (stop - start)[:, None] * centres) * knots - 0.5
    return at.clamp(0, knots - 1)


def whole(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(1, 4) region of the whole image, 0 0 1 1; made on the device, so nothing waits for it."""
    return torch.arange(4, device=device).ge(2).to(dtype)[None]


def weights_of(at: Tensor, knots: int, first: int = 0) -> Tensor:
    """(..., cells, knots) linear weights of the ``knots`` knots from ``first`` at (..., cells)."""
    knot = torch.arange(first, first + knots, device=at.device, dtype=at.dtype)
    return (1 - (at[..., None] - knot).abs()).clamp_min(0)


def hat(start: Tensor, stop: Tensor, cells: int, knots: int) -> Tensor:
    """Linear interpolation as a matrix: row i weighs the ``knots`` knots at `places` i.

    Returns:
        (N, cells, knots), rows that sum to 1.
    """
    return weights_of(places(start, stop, cells, knots), knots)


def read_grid(grid: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """A grid read at every place by interpolation matrices.

    Args:
        grid: (K, gh, gw).
        rows, columns: `hat` matrices (h, gh) and (w, gw).

    Returns:
        (K, h, w), channels-last.
    """
    knots = grid.permute(1, 2, 0)
    across = (rows @ knots.flatten(1)).view(rows.shape[0], *knots.shape[1:])
    return torch.matmul(columns, across).permute(2, 0, 1)


def upsample(branch: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, K, h_s, w_s) to ``size``: bilinear, pixel centres aligned; the identity at that size."""
    if branch.shape[-2:] == size:
        return branch
    return F.interpolate(branch, size=size, mode="bilinear", align_corners=False)


def lc_fuse_reference(
    branches: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    region: Tensor | None,
    size: tuple[int, int],
    relu: bool = True,
) -> Tensor:
    """See `cfnseg.ops.lc_fuse`; backward keeps the result of every step."""
    region = weight.new_tensor([[0, 0, 1, 1]]) if region is None else region.to(weight)
    x0, y0, x1, y1 = region.unbind(1)
    rows = hat(y0, y1, size[0], weight.shape[2])[:, None]
    columns = hat(x0, x1, size[1], weight.shape[3])[:, None].mT
    *weights, total = [torch.matmul(torch.matmul(rows, grid), columns) for grid in (*weight, bias)]
    for w, branch in zip(weights, branches):
        total = total + w * upsample(branch, size)
    return F.relu(total) if relu else total
