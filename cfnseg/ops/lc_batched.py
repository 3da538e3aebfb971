"""The lean fusion off the CPU, where calls cost more than a cache saves: some images at a time.

The host reads nothing from the device: matrices of linear interpolation read the grids and fold
the gradients. This is deterministic, unlike torch's own backward of upsampling on CUDA.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cfnseg.ops.dense_reference import sum_dtype
from cfnseg.ops.lc_reference import hat, upsample, whole

CHUNK = 1 << 25  # values of the result at once, 128 MiB of float32; at least one image


def forward(
    branches: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    region: Tensor,
    size: tuple[int, int],
    relu: bool,
) -> Tensor:
    """As `cfnseg.ops.lc_lean.forward`."""
    grid, first = _Grid(weight, bias, region, size), branches[0]
    shape = len(first), *size, weight.shape[1]
    result = torch.empty(shape, dtype=first.dtype, device=weight.device)
    for images in _chunks(shape):
        total = None
        for s, branch in enumerate(branches, 1):
            up, read = _upsampled(branch[images], size, grid.kind), grid.read(s, images)
            if total is None:
                total = torch.addcmul(grid.read(0, images), up, read)
            else:
                total.addcmul_(up, read)
        result[images] = total.relu_() if relu else total
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
    size = tuple(result.shape[2:])
    grid = _Grid(weight, bias, region, size)
    grad, result = grad.permute(0, 2, 3, 1), result.permute(0, 2, 3, 1)
    grid_grad = torch.zeros_like(grid.values)
    grads = [torch.empty_like(b, memory_format=torch.channels_last) for b in branches]
    left, top, right, bottom = whole(weight.device, grid.kind).unbind(1)
    for images in _chunks(grad.shape):
        part = grad[images].to(grid.kind)
        if relu:
            part = torch.ops.aten.threshold_backward(part, result[images].to(grid.kind), 0)
        grid_grad[0] += grid.fold(part, images)
        for s, (branch, out) in enumerate(zip(branches, grads), 1):
            up = _upsampled(branch[images], size, grid.kind)
            grid_grad[s] += grid.fold(up * part, images)
            weighted, cells = part * grid.read(s, images), branch.shape[2:]
            if cells != size:
                rows = hat(top, bottom, size[0], cells[0])
                weighted = _folded(weighted, rows, hat(left, right, size[1], cells[1]))
            out[images] = weighted.permute(0, 3, 1, 2)
    grid_grad = grid_grad.permute(0, 3, 1, 2)
    return [grid_grad[1:].to(weight.dtype), grid_grad[0].to(bias.dtype), *grads]


class _Grid:
    """Bias and weights as (S + 1, gh, gw, K), and the interpolation matrices of every region."""

    def __init__(self, weight: Tensor, bias: Tensor, region: Tensor, size: tuple[int, int]) -> None:
        self.kind = sum_dtype(weight)
        values = torch.cat([bias[None], weight]).to(self.kind)
        self.values = values.permute(0, 2, 3, 1).contiguous()
        high, wide = self.values.shape[1:3]
        self.single = high == wide == 1
        x0, y0, x1, y1 = region.to(self.kind).unbind(1)
        self.matrices = hat(y0, y1, size[0], high), hat(x0, x1, size[1], wide)

    def _matrices(self, images: slice) -> tuple[Tensor, ...]:
        return tuple(m if len(m) == 1 else m[images] for m in self.matrices)

    def read(self, s: int, images: slice) -> Tensor:
        """Map s at every place: (n or 1, h, w, K), 1 for a shared region; (1, 1, K) of one knot."""
        values = self.values[s]
        if self.single:
            return values
        rows, columns = self._matrices(images)
        across = torch.matmul(rows, values.flatten(1)).unflatten(2, values.shape[1:])
        return torch.matmul(columns[:, None], across)

    def fold(self, part: Tensor, images: slice) -> Tensor:
        """The adjoint of `read`, summed over images: (n, h, w, K) to (gh, gw, K)."""
        if self.single:
            return part.sum((0, 1, 2))[None, None]
        rows, columns = self._matrices(images)
        if len(rows) == 1:
            part = part.sum(0, keepdim=True)
        return _folded(part, rows, columns).sum(0)


def _folded(part: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(n, h, w, K) by (n or 1, h, a) and (n or 1, w, b) matrices to (n, a, b, K)."""
    down = torch.matmul(rows.mT, part.flatten(2)).unflatten(2, part.shape[2:])
    return torch.matmul(columns.mT[:, None], down)


def _upsampled(branch: Tensor, size: tuple[int, int], kind: torch.dtype) -> Tensor:
    """(n, h, w, K)."""
    return upsample(branch.to(kind), size).permute(0, 2, 3, 1)


def _chunks(shape: Sequence[int]) -> Iterator[slice]:
    """Ranges of images of an (N, h, w, K) map."""
    step = max(1, CHUNK // (shape[1] * shape[2] * shape[3]))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))
