"""The fusion as Triton kernels for CUDA, in 16 or 32 bits with float32 sums; deterministic, no atomics.

A program has a tile of rows x columns x channels of the result. Interpolated values of a tile are sums over the few source rows
that it touches of a row's weight times that row blended between two columns, so neighbours are loaded once a column, not once a
pixel; branches and grids are read alike. The adjoint goes by axes: a kernel sums over the rows that touch a source row (gathered,
so nothing is added in place), then a matrix product with the columns' interpolation matrix finishes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from cfnseg.ops import launch
from cfnseg.ops.linear import hat, whole

ROWS, TILE = 8, 2048  # rows and values of a tile
# a value of these is not compiled in, so that another size of image needs no other kernel
SIZES = ("heights", "widths", "height", "width", "gh", "gw", "step", "blocks", "knots", "rows", "columns", "other_step",
         "other_region_step")


@triton.jit
def _ends(region):
    return tl.load(region), tl.load(region + 1), tl.load(region + 2), tl.load(region + 3)


@triton.jit
def _places(cells, start, stop, count, knots):
    at = (start + (stop - start) * ((cells + 0.5) / count)) * knots - 0.5
    return tl.minimum(tl.maximum(at, 0.0), knots - 1.0)


@triton.jit
def _read(source, knots, columns, y, x, k, width, here):
    """(R, X, K) values of a (knots, columns, width) map at the places y (R,), x (X,), in float32."""
    left = tl.floor(x).to(tl.int32)
    right = tl.minimum(left + 1, columns - 1)
    t = (x - left)[:, None]
    first = tl.min(tl.floor(y), 0).to(tl.int32)
    last = tl.minimum(tl.max(tl.ceil(y), 0).to(tl.int32), knots - 1)
    total = tl.zeros((y.shape[0], x.shape[0], k.shape[0]), tl.float32)
    for row in range(first, last + 1):
        line = source + row * columns * width + k[None, :]
        a = tl.load(line + left[:, None] * width, mask=here[None, :], other=0.0).to(tl.float32)
        b = tl.load(line + right[:, None] * width, mask=here[None, :], other=0.0).to(tl.float32)
        share = tl.maximum(1.0 - tl.abs(y - row), 0.0)
        total += share[:, None, None] * (a + (b - a) * t)[None]
    return total


@triton.jit(do_not_specialize=SIZES)
def _fuse(result, grid, region, branches, heights, widths, height, width, channels, gh, gw, step, blocks, S: tl.constexpr,
          FIRST: tl.constexpr, RELU: tl.constexpr, R: tl.constexpr, X: tl.constexpr, K: tl.constexpr):
    """FIRST: the first branch has the result's size."""
    n = tl.program_id(2)
    i = tl.program_id(0) // blocks * R + tl.arange(0, R)
    j = tl.program_id(0) % blocks * X + tl.arange(0, X)
    k = tl.program_id(1) * K + tl.arange(0, K)
    here = k < channels
    x0, y0, x1, y1 = _ends(region + n * step)
    gy, gx = _places(i, y0, y1, height, gh), _places(j, x0, x1, width, gw)
    place = (i[:, None, None] * width + j[None, :, None]) * channels + k[None, None, :]
    inside = (i < height)[:, None, None] & (j < width)[None, :, None] & here[None, None, :]
    total = _read(grid, gh, gw, gy, gx, k, channels, here)
    for s in tl.static_range(S):
        branch = branches[s] + n.to(tl.int64) * heights[s] * widths[s] * channels
        if FIRST and s == 0:
            values = tl.load(branch + place, mask=inside, other=0.0).to(tl.float32)
        else:
            y, x = _places(i, 0.0, 1.0, height, heights[s]), _places(j, 0.0, 1.0, width, widths[s])
            values = _read(branch, heights[s], widths[s], y, x, k, channels, here)
        total += values * _read(grid + (s + 1) * gh * gw * channels, gh, gw, gy, gx, k, channels, here)
    if RELU:
        total = tl.maximum(total, 0.0)
    tl.store(result + n.to(tl.int64) * height * width * channels + place, total, mask=inside)


@triton.jit
def _part(grad, result, place, inside, RELU: tl.constexpr):
    """The gradient that reaches the sum, in float32."""
    part = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        part = tl.where(tl.load(result + place, mask=inside, other=0.0) > 0, part, 0.0)
    return part


@triton.jit(do_not_specialize=SIZES)
def _scale(out, grad, result, weight, region, height, width, channels, gh, gw, step, blocks, RELU: tl.constexpr, R: tl.constexpr,
           X: tl.constexpr, K: tl.constexpr):
    """Gradient of a branch of the result's size: weight x part."""
    n = tl.program_id(2)
    i = tl.program_id(0) // blocks * R + tl.arange(0, R)
    j = tl.program_id(0) % blocks * X + tl.arange(0, X)
    k = tl.program_id(1) * K + tl.arange(0, K)
    x0, y0, x1, y1 = _ends(region + n * step)
    inside = (i < height)[:, None, None] & (j < width)[None, :, None] & (k < channels)[None, None, :]
    place = n.to(tl.int64) * height * width * channels + (i[:, None, None] * width + j[None, :, None]) * channels + k[None, None, :]
    read = _read(weight, gh, gw, _places(i, y0, y1, height, gh), _places(j, x0, x1, width, gw), k, channels, k < channels)
    tl.store(out + place, _part(grad, result, place, inside, RELU) * read, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def _fold(out, grad, result, other, region, other_region, height, width, channels, knots, rows, columns, other_step, step,
          other_region_step, OTHER: tl.constexpr, RELU: tl.constexpr, R: tl.constexpr, X: tl.constexpr, K: tl.constexpr):
    """out (N, knots, width, channels): for a knot, the sum over the rows around it of hat x part x other.

    The knots lie in ``region``, the (rows, columns) of other in ``other_region``. OTHER: 0 = it is 1, 1 = it has the result's
    size, 2 = it is interpolated.
    """
    n, knot = tl.program_id(2) // knots, tl.program_id(2) % knots
    j = tl.program_id(0) * X + tl.arange(0, X)
    k = tl.program_id(1) * K + tl.arange(0, K)
    _, start, _, stop = _ends(region + n * step)
    oleft, ostart, oright, ostop = _ends(other_region + n * other_region_step)
    # rows whose places are within one knot, with one to spare for rounding; the border knots also take what lies beyond, and
    # every knot takes all rows of a region that is empty or upside down
    span = stop - start
    forward = span > 0
    scale = height / tl.where(forward, span, 1.0)
    low = ((knot - 0.5) / knots - start) * scale - 1.5
    high = ((knot + 1.5) / knots - start) * scale + 1.5
    low = tl.where(forward & (knot > 0), tl.minimum(tl.maximum(low, 0.0), height * 1.0), 0.0)
    high = tl.where(forward & (knot < knots - 1), tl.minimum(tl.maximum(high, 0.0), height * 1.0), height * 1.0)
    lowest, highest = low.to(tl.int32), high.to(tl.int32)
    total = tl.zeros((X, K), tl.float32)
    for top in range(lowest, highest, R):
        i = top + tl.arange(0, R)
        inside = (i < highest)[:, None, None] & (j < width)[None, :, None] & (k < channels)[None, None, :]
        place = (i[:, None, None] * width + j[None, :, None]) * channels + k[None, None, :]
        part = _part(grad, result, n.to(tl.int64) * height * width * channels + place, inside, RELU)
        if OTHER == 1:
            part *= tl.load(other + n.to(tl.int64) * other_step + place, mask=inside, other=0.0).to(tl.float32)
        if OTHER == 2:
            y, x = _places(i, ostart, ostop, height, rows), _places(j, oleft, oright, width, columns)
            part *= _read(other + n.to(tl.int64) * other_step, rows, columns, y, x, k, channels, k < channels)
        share = tl.maximum(1.0 - tl.abs(_places(i, start, stop, height, knots) - knot), 0.0)
        total += tl.sum(share[:, None, None] * part, 0)
    spot = (tl.program_id(2).to(tl.int64) * width + j[:, None]) * channels + k[None, :]
    tl.store(out + spot, total, mask=(j < width)[:, None] & (k < channels)[None, :])


def forward(branches: Sequence[Tensor], weight: Tensor, bias: Tensor, region: Tensor, size: tuple[int, int], relu: bool) -> Tensor:
    """As `cfnseg.ops.lc_fuse.lean.forward`, of channels-last branches."""
    run = _Run(weight, bias, region, size, branches)
    result = torch.empty(len(branches[0]), *size, weight.shape[1], dtype=branches[0].dtype, device=weight.device)
    heights, widths = (tuple(b.shape[axis] for b in run.branches) for axis in (1, 2))
    blocks = triton.cdiv(size[1], run.x)
    launch.run(_fuse, (triton.cdiv(size[0], ROWS) * blocks, run.parts, len(result)), result, run.grid, run.region,
               tuple(run.branches), heights, widths, *size, *run.shape, run.step, blocks, S=len(branches),
               FIRST=run.branches[0].shape[1:3] == size, RELU=relu, **run.tile)
    return result.permute(0, 3, 1, 2)


def backward(grad: Tensor, result: Tensor, branches: Sequence[Tensor], weight: Tensor, bias: Tensor, region: Tensor,
             relu: bool) -> list[Tensor]:
    """As `cfnseg.ops.lc_fuse.lean.backward`, of channels-last branches."""
    run = _Run(weight, bias, region, tuple(result.shape[2:]), branches)
    grad = grad.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    result = result.permute(0, 2, 3, 1)
    with torch.autocast(grad.device.type, enabled=False):
        grids = [run.grid_grad(grad, result, branch, relu) for branch in (None, *run.branches)]
        grads = [run.branch_grad(grad, result, s, relu).permute(0, 3, 1, 2) for s in range(len(branches))]
    return [torch.stack(grids[1:]).to(weight.dtype), grids[0].to(bias.dtype), *grads]


class _Run:
    """The inputs as (rows, columns, channels) and the shape of a tile."""

    def __init__(self, weight: Tensor, bias: Tensor, region: Tensor, size: tuple[int, int], branches: Sequence[Tensor]) -> None:
        self.size, self.region, self.step = size, region.float().contiguous(), 4 if len(region) > 1 else 0
        self.grid = torch.cat([bias[None], weight]).float().permute(0, 2, 3, 1).contiguous()
        self.branches = [b.permute(0, 2, 3, 1) for b in branches]
        channels, high, wide = weight.shape[1:]
        self.shape = channels, high, wide
        k = max(32, min(128, triton.next_power_of_2(channels)))
        self.x, self.parts = max(1, TILE // (ROWS * k)), triton.cdiv(channels, k)
        self.tile = {"R": ROWS, "X": self.x, "K": k}

    def _folded(self, grad: Tensor, result: Tensor, other: Tensor, knots: int, kind: int, grid: bool, relu: bool) -> Tensor:
        """`_fold` into the knots of the grid, with a branch as other; or into those of a branch, with a weight as other."""
        out = torch.empty(len(grad), knots, *grad.shape[2:], device=grad.device)
        own, full = (self.region, self.step), (whole(grad.device, torch.float32), 0)
        (region, step), (other_region, other_region_step) = (own, full) if grid else (full, own)
        launch.run(_fold, (triton.cdiv(self.size[1], self.x), self.parts, len(grad) * knots), out, grad, result, other, region,
                   other_region, *self.size, self.shape[0], knots, *other.shape[-3:-1], other[0].numel() if grid else 0, step,
                   other_region_step, OTHER=kind, RELU=relu, **self.tile)
        return out

    def grid_grad(self, grad: Tensor, result: Tensor, branch: Tensor | None, relu: bool) -> Tensor:
        """(K, gh, gw) gradient of the weight of a branch, or of the bias (None)."""
        kind = 0 if branch is None else 1 if branch.shape[1:3] == self.size else 2
        rows = self._folded(grad, result, grad if branch is None else branch, self.shape[1], kind, True, relu)
        columns = hat(self.region[:, 0], self.region[:, 2], self.size[1], self.shape[2])
        if len(columns) == 1:
            rows = rows.sum(0, keepdim=True)
        return torch.matmul(columns.mT[:, None], rows).sum(0).permute(2, 0, 1)

    def branch_grad(self, grad: Tensor, result: Tensor, s: int, relu: bool) -> Tensor:
        """(N, h_s, w_s, K) gradient of branch s."""
        branch, weight = self.branches[s], self.grid[s + 1]
        if branch.shape[1:3] == self.size:
            out = torch.empty_like(branch)
            blocks = triton.cdiv(self.size[1], self.x)
            launch.run(_scale, (triton.cdiv(self.size[0], ROWS) * blocks, self.parts, len(grad)), out, grad, result, weight,
                       self.region, *self.size, *self.shape, self.step, blocks, RELU=relu, **self.tile)
            return out
        rows = self._folded(grad, result, weight, branch.shape[1], 2, False, relu)
        left, _, right, _ = whole(grad.device, torch.float32).unbind(1)
        return torch.matmul(hat(left, right, self.size[1], branch.shape[2])[0].T, rows).to(branch.dtype)
