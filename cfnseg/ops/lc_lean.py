"""The fusion on a CPU, a strip of rows at a time.

Upsampled branches and weights read from the grid live in the cache only. Other devices run
`cfnseg.ops.lc_batched`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cfnseg.ops import lc_batched
from cfnseg.ops.dense_reference import sum_dtype
from cfnseg.ops.lc_reference import places, weights_of

Taps = tuple[slice, Tensor] | None  # a band of a branch's rows and its weights
STRIP = 1 << 19  # values of a strip, 2 MiB of float32: fewer cost calls, more leave the cache


def forward(
    branches: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    region: Tensor,
    size: tuple[int, int],
    relu: bool,
) -> Tensor:
    """See `cfnseg.ops.lc_fuse`; the region is (N or 1, 4)."""
    if not _in_strips(weight.device):
        return lc_batched.forward(branches, weight, bias, region, size, relu)
    walk, first = _Walk(weight, bias, region, size, branches), branches[0]
    result = torch.empty(len(first), *size, weight.shape[1], dtype=first.dtype)
    for rows, images, _, (bias_here, *weights), taps in walk.strips():
        for n in images:
            total = bias_here
            for s in walk.cells:
                total = torch.addcmul(total, walk.upsampled(s, n, rows, taps[s]), weights[s])
            for i, s in enumerate(walk.maps):
                add = total.addcmul_ if i else total.addcmul
                total = add(walk.upsampled(s, n, rows, taps[s]), weights[s])
            result[n, rows] = total.relu_() if relu else total
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
    """Gradients of weight, bias and each branch from the result's gradient."""
    if not _in_strips(weight.device):
        return lc_batched.backward(grad, result, branches, weight, bias, region, relu)
    walk = _Walk(weight, bias, region, tuple(result.shape[2:]), branches)
    grad, result = grad.permute(0, 2, 3, 1), result.permute(0, 2, 3, 1)
    grid_grad = torch.zeros_like(walk.grid)
    grads = []
    for b in walk.branches:  # a branch of the result's size is written row by row, once
        make = torch.empty if b.shape[1:3] == walk.size else torch.zeros
        grads.append(make(b.shape, dtype=walk.kind))
    high, wide = grid_grad.shape[1:3]
    differentiate = _many_columns
    if wide == 1:
        differentiate = _one_column if high > 1 else _one_knot
    differentiate(walk, grad, result, relu, grads, grid_grad)
    grid_grad = grid_grad.permute(0, 3, 1, 2)
    grads = [g.permute(0, 3, 1, 2).to(b.dtype) for g, b in zip(grads, branches)]
    return [grid_grad[1:].to(weight.dtype), grid_grad[0].to(bias.dtype), *grads]


def _many_columns(
    walk: _Walk, grad: Tensor, result: Tensor, relu: bool, grads: list[Tensor], grid_grad: Tensor
) -> None:
    """Add to the gradients of branches and grid: products at every cell of the result."""
    for rows, images, (y, x), weights, taps in walk.strips():
        sums: list[Tensor] = []
        for n in images:
            part = walk.part(grad, result, n, rows, relu)
            if sums:
                sums[0] += part
            else:  # without ReLU it may be the gradient that came in
                sums.append(part if relu else part.clone())
            for s, w in enumerate(weights[1:]):
                up = walk.upsampled(s, n, rows, taps[s])
                if s + 1 < len(sums):
                    sums[s + 1].addcmul_(up, part)
                else:
                    sums.append(up * part)
                walk.fold(grads[s][n], rows, taps[s], w, part)
        band = y.band(rows)
        matrix = y.matrix(rows, band).T
        down = torch.stack([_by_rows(matrix, one) for one in sums])
        grid_grad[:, band] += x.fold(down)


def _one_column(
    walk: _Walk, grad: Tensor, result: Tensor, relu: bool, grads: list[Tensor], grid_grad: Tensor
) -> None:
    """As `_many_columns` with one weight a row and channel: products at the branch's columns."""
    for rows, images, (y, _), (_, *weights), taps in walk.strips():
        sums = grid_grad.new_zeros(len(grid_grad), rows.stop - rows.start, grid_grad.shape[3])
        for n in images:
            part = walk.part(grad, result, n, rows, relu)
            across = part.sum(1)
            sums[0] += across
            for s, w in enumerate(weights):
                branch, own = walk.branches[s][n], grads[s][n]
                if taps[s] is None:
                    sums[s + 1] += (branch[rows].to(walk.kind) * part).sum(1)
                    torch.mul(w, part, out=own[rows])
                elif s in walk.cells:
                    sums[s + 1] += branch[0] * across
                    own += (w[:, 0] * across).sum(0)
                else:
                    band, matrix = taps[s]
                    part_s = walk.fold_columns(part, own.shape[1])
                    sums[s + 1] += (_by_rows(matrix, branch[band].to(walk.kind)) * part_s).sum(1)
                    own[band] += _by_rows(matrix.T, w * part_s)
        band = y.band(rows)
        grid_grad[:, band, 0] += torch.matmul(y.matrix(rows, band).T, sums)


def _one_knot(
    walk: _Walk, grad: Tensor, result: Tensor, relu: bool, grads: list[Tensor], grid_grad: Tensor
) -> None:
    """As `_many_columns` with one weight a channel: products at the branch's own cells."""
    total, weights = grid_grad[:, 0, 0], walk.grid[1:, 0, 0]
    for rows, images, _, _, taps in walk.strips():
        for n in images:
            part = walk.part(grad, result, n, rows, relu)
            total[0] += part.sum((0, 1))
            for s, own in enumerate(taps):
                if own is None:
                    total[s + 1] += (walk.branches[s][n, rows].to(walk.kind) * part).sum((0, 1))
                    torch.mul(weights[s], part, out=grads[s][n, rows])
                else:
                    walk.fold(grads[s][n], rows, own, None, part)
    for s, (b, g) in enumerate(zip(walk.branches, grads)):
        if b.shape[1:3] != walk.size:
            total[s + 1] = (b.to(walk.kind) * g).sum((0, 1, 2))
            g *= weights[s]


def _in_strips(device: torch.device) -> bool:
    return device.type == "cpu"


def _by_rows(matrix: Tensor, values: Tensor) -> Tensor:
    """(a, b) by (b, w, K) to (a, w, K)."""
    return torch.mm(matrix, values.flatten(1)).view(-1, *values.shape[1:])


class Axis:
    """Places along one axis and the knots around them.

    Args:
        at: (cells,) `cfnseg.ops.lc_reference.places`, monotonic.
        knots: their number.
    """

    def __init__(self, at: Tensor, knots: int) -> None:
        self.at, self.knots = at, knots
        # every place is a knot of its own, in order: reading is the identity
        self.same = len(at) == knots and bool((at == torch.arange(knots)).all())

    def band(self, cells: slice) -> slice:
        """The knots between which the places of ``cells`` lie."""
        ends = self.at[cells][:: max(1, cells.stop - cells.start - 1)]
        return slice(int(ends.min().floor()), int(ends.max().ceil()) + 1)

    def matrix(self, cells: slice, band: slice) -> Tensor:
        """(cells, band) weights."""
        return weights_of(self.at[cells], band.stop - band.start, band.start)

    def _taps(self) -> tuple[Tensor, Tensor, Tensor]:
        low = self.at.floor().long()
        return low, (low + 1).clamp_max(self.knots - 1), (self.at - low)[:, None]

    def read(self, values: Tensor) -> Tensor:
        """(..., knots, K) values at every place: (..., cells, K), or (..., 1, K) of one knot."""
        if self.same or self.knots == 1:
            return values
        low, high, t = self._taps()
        return torch.lerp(values.index_select(-2, low), values.index_select(-2, high), t)

    def fold(self, grad: Tensor) -> Tensor:
        """The adjoint of `read`: (..., cells, K) to (..., knots, K)."""
        if self.same:
            return grad
        if self.knots == 1:
            return grad.sum(-2, keepdim=True)
        low, high, t = self._taps()
        result = grad.new_zeros(*grad.shape[:-2], self.knots, grad.shape[-1])
        upper = grad * t
        return result.index_add_(-2, high, upper).index_add_(-2, low, grad - upper)


class _Walk:
    """The inputs as (rows, columns, channels), and strips of the result."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        region: Tensor,
        size: tuple[int, int],
        branches: Sequence[Tensor],
    ) -> None:
        self.kind, self.size = sum_dtype(weight), size
        grid = torch.cat([bias[None], weight]).to(self.kind)
        self.grid = grid.permute(0, 2, 3, 1).contiguous()
        self.branches = [b.permute(0, 2, 3, 1) for b in branches]
        high, wide = self.grid.shape[1:3]
        if high * wide == 1:  # read alike everywhere
            region = region[:1]
        x0, y0, x1, y1 = region.to(self.kind).unbind(1)
        ys, xs = places(y0, y1, size[0], high), places(x0, x1, size[1], wide)
        self.axes = [(Axis(y, high), Axis(x, wide)) for y, x in zip(ys, xs)]
        start, stop = torch.tensor([[0.0], [1.0]], dtype=self.kind)
        # branches of one cell join the bias first: with one column of knots that is no full map
        self.cells = [s for s, b in enumerate(self.branches) if b.shape[1:3] == (1, 1)]
        self.maps = [s for s in range(len(self.branches)) if s not in self.cells]
        heights = [b.shape[1] for b in self.branches]
        self.rows = [Axis(places(start, stop, size[0], h)[0], h) for h in heights]

    def strips(self) -> Iterator[tuple]:
        """Strips of rows from the top, all images of one before the next.

        Yields:
            rows: a slice of the result.
            images: a range that shares a region.
            axes: y and x of the grid.
            weights: (S + 1, rows, w, K) bias and weights; rows, w may be 1 for all.
            taps: per branch the band of its rows and their (rows, band) weights; None for a branch
                of the result's size.
        """
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
                    read = [_by_rows(matrix, one) for one in read]
                shared = range(images) if len(self.axes) == 1 else range(n, n + 1)
                yield rows, shared, (y, x), read, taps

    def _taps(self, s: int, rows: slice) -> Taps:
        if self.branches[s].shape[1:3] == self.size:
            return None
        band = self.rows[s].band(rows)
        return band, self.rows[s].matrix(rows, band)

    def part(self, grad: Tensor, result: Tensor, n: int, rows: slice, relu: bool) -> Tensor:
        """(rows, w, K) of the result's gradient before the ReLU, of image n."""
        part = grad[n, rows].to(self.kind)
        if relu:
            part = torch.ops.aten.threshold_backward(part, result[n, rows].to(self.kind), 0)
        return part

    def upsampled(self, s: int, n: int, rows: slice, taps: Taps) -> Tensor:
        """(rows, w, K) of branch s of image n; (1, 1, K) of a branch of one cell."""
        branch = self.branches[s][n]
        if taps is None:
            return branch[rows].to(self.kind)
        if s in self.cells:
            return branch.to(self.kind)
        band, matrix = taps
        # images of one row each: along a row torch's own interpolation is the fastest
        lines = _by_rows(matrix, branch[band].to(self.kind))[:, None].permute(0, 3, 1, 2)
        lines = F.interpolate(lines, (1, self.size[1]), mode="bilinear")
        return lines.permute(0, 2, 3, 1)[:, 0]

    def fold(
        self, grad: Tensor, rows: slice, taps: Taps, weight: Tensor | None, part: Tensor
    ) -> None:
        """Add the adjoint of `upsampled` at ``weight * part`` to a branch's (h_s, w_s, K) grad."""
        if taps is None:
            torch.mul(weight, part, out=grad[rows])
            return
        part = part if weight is None else weight * part
        if grad.shape[:2] == (1, 1):
            grad += part.sum((0, 1))
            return
        band, matrix = taps
        grad[band] += _by_rows(matrix.T, self.fold_columns(part, grad.shape[1]))

    def fold_columns(self, part: Tensor, columns: int) -> Tensor:
        """The adjoint of upsampling along rows: (rows, w, K) to (rows, columns, K)."""
        lines = part[:, None].permute(0, 3, 1, 2)
        lines = torch.ops.aten.upsample_bilinear2d_backward(
            lines, (1, part.shape[1]), (len(part), part.shape[2], 1, columns), False, None, None
        )
        return lines.permute(0, 2, 3, 1)[:, 0]
