"""The fusion on a CPU a strip of rows at a time: what is upsampled or read from the grid lives in the cache only.

Other devices get `cfnseg.ops.lc_fuse.batched`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cfnseg.ops.lc_fuse import batched
from cfnseg.ops.linear import Axis, places

STRIP = 1 << 19  # values of a strip, 2 MiB of float32: smaller ones cost calls, larger ones leave the cache


def forward(branches: Sequence[Tensor], weight: Tensor, bias: Tensor, region: Tensor, size: tuple[int, int], relu: bool) -> Tensor:
    """See `cfnseg.ops.lc_fuse`; the region is (N or 1, 4)."""
    if not _in_strips(weight.device):
        return batched.forward(branches, weight, bias, region, size, relu)
    walk = _Walk(weight, bias, region, size, branches)
    result = torch.empty(len(branches[0]), *size, weight.shape[1], dtype=branches[0].dtype, device=weight.device)
    with torch.autocast(weight.device.type, enabled=False):
        for strip in walk.strips():
            weights = strip.weights
            for n in strip.images:
                total = None
                for s, w in enumerate(weights[1:]):
                    up = walk.upsampled(s, n, strip)
                    total = torch.addcmul(weights[0], up, w) if total is None else total.addcmul_(up, w)
                result[n, strip.rows] = total.relu_() if relu else total
    return result.permute(0, 3, 1, 2)


def backward(grad: Tensor, result: Tensor, branches: Sequence[Tensor], weight: Tensor, bias: Tensor, region: Tensor,
             relu: bool) -> list[Tensor]:
    """Gradients of weight, bias and each branch from that of the result; branches are upsampled and the grid is read again."""
    if not _in_strips(weight.device):
        return batched.backward(grad, result, branches, weight, bias, region, relu)
    walk = _Walk(weight, bias, region, tuple(result.shape[2:]), branches)
    grad, result = grad.permute(0, 2, 3, 1), result.permute(0, 2, 3, 1)
    grid_grad = torch.zeros_like(walk.grid)
    # a branch of the result's size is written row by row, once
    grads = [(torch.empty if b.shape[1:3] == walk.size else torch.zeros)(b.shape, dtype=walk.kind, device=b.device)
             for b in walk.branches]
    with torch.autocast(weight.device.type, enabled=False):
        for strip in walk.strips():
            rows, (y, x) = strip.rows, strip.axes
            sums: list[Tensor] = []
            for n in strip.images:
                part = grad[n, rows].to(walk.kind)
                if relu:
                    part = torch.ops.aten.threshold_backward(part, result[n, rows].to(walk.kind), 0)
                if sums:
                    sums[0] += part
                else:
                    sums.append(part if relu else part.clone())  # without ReLU it may be the gradient itself
                for s, w in enumerate(strip.weights[1:], 1):
                    up = walk.upsampled(s - 1, n, strip)
                    if s < len(sums):
                        sums[s].addcmul_(up, part)
                    else:
                        sums.append(up * part)
                    walk.fold(s - 1, grads[s - 1][n], strip, w, part)
            band = y.band(rows)
            matrix = y.matrix(rows, band).T
            down = [torch.mm(matrix, one.flatten(1)).view(-1, *one.shape[1:]) for one in sums]
            grid_grad[:, band] += x.fold(torch.stack(down))
    grid_grad = grid_grad.permute(0, 3, 1, 2)
    grads = [g.permute(0, 3, 1, 2).to(b.dtype) for g, b in zip(grads, branches)]
    return [grid_grad[1:].to(weight.dtype), grid_grad[0].to(bias.dtype), *grads]


def _in_strips(device: torch.device) -> bool:
    return device.type == "cpu"


class _Strip(NamedTuple):
    """Rows of the result, the images that share a region there, and what both have in common.

    Attributes:
        axes: of the grid, y and x.
        weights: (S + 1, rows, w, K) bias and weights; rows, w may be 1 for all.
        taps: of each branch the band of its rows and the (rows, band) weights; None of one that has the result's size.
    """

    rows: slice
    images: range
    axes: tuple[Axis, Axis]
    weights: Sequence[Tensor]
    taps: list[tuple[slice, Tensor] | None]


class _Walk:
    """The inputs as (rows, columns, channels), and strips of the result."""

    def __init__(self, weight: Tensor, bias: Tensor, region: Tensor, size: tuple[int, int], branches: Sequence[Tensor]) -> None:
        self.kind = torch.promote_types(weight.dtype, torch.float32)  # sums of 16-bit values are in 32 bits
        self.size = size
        self.grid = torch.cat([bias[None], weight]).to(self.kind).permute(0, 2, 3, 1).contiguous()
        self.branches = [b.permute(0, 2, 3, 1) for b in branches]
        x0, y0, x1, y1 = region.to(self.kind).unbind(1)
        high, wide = self.grid.shape[1:3]
        self.axes = [(Axis.of(y, high), Axis.of(x, wide)) for y, x in zip(places(y0, y1, size[0], high), places(x0, x1, size[1], wide))]
        whole = region.new_tensor([0.0, 1.0], dtype=self.kind)[:, None]
        self.rows = [Axis.of(places(*whole, size[0], b.shape[1])[0], b.shape[1]) for b in self.branches]

    def strips(self) -> Iterator[_Strip]:
        """Strips of rows, from the top; all images of one before the next."""
        height, images = self.size[0], len(self.branches[0])
        step = max(1, STRIP // (self.size[1] * self.grid.shape[3]))
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            taps = [self._taps(s, rows) for s in range(len(self.branches))]
            for n, (y, x) in enumerate(self.axes):
                band = y.band(rows)
                read = x.read(self.grid[:, band])
                if not y.same and band.stop - band.start > 1:
                    matrix = y.matrix(rows, band)
                    read = [torch.mm(matrix, one.flatten(1)).view(-1, *one.shape[1:]) for one in read]
                yield _Strip(rows, range(images) if len(self.axes) == 1 else range(n, n + 1), (y, x), read, taps)

    def _taps(self, s: int, rows: slice) -> tuple[slice, Tensor] | None:
        if self.branches[s].shape[1:3] == self.size:
            return None
        band = self.rows[s].band(rows)
        return band, self.rows[s].matrix(rows, band)

    def upsampled(self, s: int, n: int, strip: _Strip) -> Tensor:
        """(rows, w, K) of branch s of image n."""
        branch, taps = self.branches[s][n], strip.taps[s]
        if taps is None:
            return branch[strip.rows].to(self.kind)
        band, matrix = taps
        lines = branch[band].to(self.kind)
        lines = torch.mm(matrix, lines.flatten(1)).view(-1, 1, *lines.shape[1:])
        # one image of one row each: along the row torch's own is the fastest
        return F.interpolate(lines.permute(0, 3, 1, 2), (1, self.size[1]), mode="bilinear").permute(0, 2, 3, 1)[:, 0]

    def fold(self, s: int, grad: Tensor, strip: _Strip, weight: Tensor, part: Tensor) -> None:
        """Add the adjoint of `upsampled` at ``weight * part`` to the (h_s, w_s, K) gradient of a branch."""
        taps = strip.taps[s]
        if taps is None:
            torch.mul(weight, part, out=grad[strip.rows])
            return
        part = weight * part
        shape = len(part), part.shape[2], 1, grad.shape[1]
        lines = part[:, None].permute(0, 3, 1, 2)
        lines = torch.ops.aten.upsample_bilinear2d_backward(lines, (1, part.shape[1]), shape, False, None, None)
        band, matrix = taps
        lines = lines.permute(0, 2, 3, 1).flatten(1)
        grad[band] += torch.mm(matrix.T, lines).view(-1, *grad.shape[1:])
