"""Linear interpolation along an axis: as a matrix, as taps that are gathered, and the adjoint of both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def places(start: Tensor, stop: Tensor, cells: int, knots: int) -> Tensor:
    """(N, cells) places, in knots, of the centres of ``cells`` equal cells of an interval.

    Args:
        start, stop: (N,) ends of the interval, 0..1 over the axis; places outside are moved to the border knot.
        cells: cells of equal length in the interval.
        knots: knots of the axis, centred at (a + .5) / knots.
    """
    centres = (torch.arange(cells, device=start.device, dtype=start.dtype) + 0.5) / cells
    return ((start[:, None] + (stop - start)[:, None] * centres) * knots - 0.5).clamp(0, knots - 1)


def whole(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(1, 4) region of the whole image, 0 0 1 1; made on the device, as a copy from the host would wait for it."""
    return torch.arange(4, device=device).ge(2).to(dtype)[None]


def hat(start: Tensor, stop: Tensor, cells: int, knots: int) -> Tensor:
    """Linear interpolation as a matrix: row i holds the weights of the ``knots`` knots at `places` i.

    Returns:
        (N, cells, knots), rows that sum to 1.
    """
    at = places(start, stop, cells, knots)
    return (1 - (at[..., None] - torch.arange(knots, device=at.device, dtype=at.dtype)).abs()).clamp_min(0)


def read_grid(grid: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(K, gh, gw) grid values at (h, w) places by their `hat` matrices (h, gh) and (w, gw): (K, h, w), channels-last."""
    knots = grid.permute(1, 2, 0)
    across = (rows @ knots.flatten(1)).view(len(rows), *knots.shape[1:])
    return torch.matmul(columns, across).permute(2, 0, 1)


def upsample(branch: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear upsampling of (N, K, h_s, w_s) to ``size``, pixel centres aligned; the identity at that size."""
    if branch.shape[-2:] == size:
        return branch
    return F.interpolate(branch, size=size, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Axis:
    """Places along one axis and the knots around them.

    Attributes:
        at: (cells,) places in knots, monotonic.
        knots: how many there are.
        same: every place is a knot of its own, in order: reading is the identity.
    """

    at: Tensor
    knots: int
    same: bool

    @classmethod
    def of(cls, at: Tensor, knots: int) -> Axis:
        """The axis of (cells,) `places`."""
        same = len(at) == knots and bool((at == torch.arange(knots, device=at.device)).all())
        return cls(at, knots, same)

    def band(self, cells: slice) -> slice:
        """The knots that the places of ``cells`` lie between."""
        ends = self.at[cells][:: max(1, cells.stop - cells.start - 1)]
        return slice(int(ends.min().floor()), int(ends.max().ceil()) + 1)

    def matrix(self, cells: slice, band: slice) -> Tensor:
        """(cells, band) weights."""
        knots = torch.arange(band.start, band.stop, device=self.at.device, dtype=self.at.dtype)
        return (1 - (self.at[cells, None] - knots).abs()).clamp_min(0)

    def _taps(self) -> tuple[Tensor, Tensor, Tensor]:
        low = self.at.floor().long()
        return low, (low + 1).clamp_max(self.knots - 1), (self.at - low)[:, None]

    def read(self, values: Tensor) -> Tensor:
        """(..., knots, K) values at every place: (..., cells, K), or (..., 1, K) of a single knot, which is the same everywhere."""
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
