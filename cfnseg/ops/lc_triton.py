"""The fusion by the Triton kernels, of channels-last branches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from cfnseg.ops.dispatch import launch
from cfnseg.ops.lc_kernels import fold_kernel, fuse_kernel, scale_kernel
from cfnseg.ops.lc_reference import hat, whole

ROWS, TILE = 8, 2048  # rows and values of a tile


def forward(
    branches: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    region: Tensor,
    size: tuple[int, int],
    relu: bool,
) -> Tensor:
    """As `cfnseg.ops.lc_lean.forward`."""
    run, first = _Run(weight, bias, region, size, branches), branches[0]
    shape = len(first), *size, weight.shape[1]
    result = torch.empty(shape, dtype=first.dtype, device=weight.device)
    heights, widths = (tuple(b.shape[axis] for b in run.branches) for axis in (1, 2))
    inputs = run.grid, run.region, tuple(run.branches), heights, widths
    flags = {"S": len(branches), "FIRST": run.branches[0].shape[1:3] == size, "RELU": relu}
    run.launch_tiles(fuse_kernel, result, *inputs, **flags)
    return result.permute(0, 3, 1, 2)


def backward(
    grad: Tensor,
    result: Tensor,
    branches: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    region: Tensor,
    relu: bool,
) -> list[Tensor]:
    """As `cfnseg.ops.lc_lean.backward`."""
    run = _Run(weight, bias, region, tuple(result.shape[2:]), branches)
    grad = grad.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    result = result.permute(0, 2, 3, 1)
    grids = [run.grid_grad(grad, result, branch, relu) for branch in (None, *run.branches)]
    grads = [run.branch_grad(grad, result, s, relu) for s in range(len(branches))]
    grids = torch.stack(grids[1:]).to(weight.dtype), grids[0].to(bias.dtype)
    return [*grids, *(g.permute(0, 3, 1, 2) for g in grads)]


class _Run:
    """The inputs as (rows, columns, channels), and the shape of a tile."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        region: Tensor,
        size: tuple[int, int],
        branches: Sequence[Tensor],
    ) -> None:
        self.size, self.region = size, region.float().contiguous()
        self.step = 4 if len(region) > 1 else 0
        grid = torch.cat([bias[None], weight]).float()
        self.grid = grid.permute(0, 2, 3, 1).contiguous()
        self.branches = [b.permute(0, 2, 3, 1) for b in branches]
        channels, high, wide = weight.shape[1:]
        self.shape = channels, high, wide
        k = max(32, min(128, triton.next_power_of_2(channels)))
        self.x, self.parts = max(1, TILE // (ROWS * k)), triton.cdiv(channels, k)
        self.tile = {"R": ROWS, "X": self.x, "K": k}

    def launch_tiles(self, kernel, out: Tensor, *inputs: Tensor | tuple, **flags: int) -> None:
        """Launch a kernel whose programs share the result's tiles."""
        blocks = triton.cdiv(self.size[1], self.x)
        grid = triton.cdiv(self.size[0], ROWS) * blocks, self.parts, len(out)
        sizes = *self.size, *self.shape, self.step, blocks
        launch(kernel, grid, out, *inputs, *sizes, **flags, **self.tile)

    def _folded(
        self,
        grad: Tensor,
        result: Tensor,
        other: Tensor,
        knots: int,
        kind: int,
        grid: bool,
        relu: bool,
    ) -> Tensor:
        """(N, knots, w, K) of `fold_kernel`.

        ``grid`` folds into the grid's knots with a branch as other; else into a branch's rows with
        a weight as other.
        """
        out = torch.empty(len(grad), knots, *grad.shape[2:], device=grad.device)
        own, full = (self.region, self.step), (whole(grad.device, torch.float32), 0)
        (region, step), (other_region, other_step) = (own, full) if grid else (full, own)
        inputs = out, grad, result, other, region, other_region
        sizes = *self.size, self.shape[0], knots, *other.shape[-3:-1]
        steps = other[0].numel() if grid else 0, step, other_step
        programs = triton.cdiv(self.size[1], self.x), self.parts, len(grad) * knots
        launch(fold_kernel, programs, *inputs, *sizes, *steps, OTHER=kind, RELU=relu, **self.tile)
        return out

    def grid_grad(self, grad: Tensor, result: Tensor, branch: Tensor | None, relu: bool) -> Tensor:
        """(K, gh, gw) gradient of a branch's weight, or of the bias (None)."""
        kind = 0 if branch is None else 1 if branch.shape[1:3] == self.size else 2
        other = grad if branch is None else branch
        rows = self._folded(grad, result, other, self.shape[1], kind, True, relu)
        columns = hat(self.region[:, 0], self.region[:, 2], self.size[1], self.shape[2])
        if len(columns) == 1:
            rows = rows.sum(0, keepdim=True)
        return torch.matmul(columns.mT[:, None], rows).sum(0).permute(2, 0, 1)

    def branch_grad(self, grad: Tensor, result: Tensor, s: int, relu: bool) -> Tensor:
        """(N, h_s, w_s, K) gradient of branch s."""
        branch, weight = self.branches[s], self.grid[s + 1]
        if branch.shape[1:3] == self.size:
            out = torch.empty_like(branch)
            self.launch_tiles(scale_kernel, out, grad, result, weight, self.region, RELU=relu)
            return out
        rows = self._folded(grad, result, weight, branch.shape[1], 2, False, relu)
        left, _, right, _ = whole(grad.device, torch.float32).unbind(1)
        columns = hat(left, right, self.size[1], branch.shape[2])[0]
        return torch.matmul(columns.T, rows).to(branch.dtype)
