"""Fusion over side branches: locally connected, sum, and shared-weight convolution, behind one interface.

Each maps S branches (N, K, h_s, w_s) to one feature (N, K, h, w) at the finest branch's size. With 1x1 branches the same
class is the image-level fusion. Source: MMM 2017 slides and the authors' configuration; the grid is our construction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.errors import UserError


def upsample(branch: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Send to the pixel level: bilinear upsampling of (N, K, h_s, w_s) to ``size``; the identity at that size."""
    if branch.shape[-2:] == size:
        return branch
    return F.interpolate(branch, size=tuple(size), mode="bilinear", align_corners=False)


def read_grid(grid: Tensor, region: Tensor, size: tuple[int, int]) -> Tensor:
    """Read a grid that lies over the full image at the cells of a region of it.

    Args:
        grid: (M, gh, gw) values; cell (a, b) is centred at ((a + .5) / gh, (b + .5) / gw) of the full image.
        region: (N, 4) x0, y0, x1, y1 in the full image, 1 = full width or height; parts outside [0, 1] read the border.
        size: (h, w) cells to read in the region.

    Returns:
        (N, M, h, w), bilinear between grid cells.
    """
    region = region.to(grid.dtype)
    rows = hat(region[:, 1], region[:, 3], size[0], grid.shape[1])
    columns = hat(region[:, 0], region[:, 2], size[1], grid.shape[2])
    # channels innermost, so that the result is channels-last like the maps it weighs
    read = torch.einsum("nia,abm->nibm", rows, grid.permute(1, 2, 0))
    return torch.matmul(columns[:, None], read).permute(0, 3, 1, 2)


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


class LocallyConnectedFusion(nn.Module):
    """f[k,i,j] = ReLU(sum_s w[s,k,i,j] U_s[k,i,j] + b[k,i,j]): a weight per branch and channel at every pixel.

    The weights live on a grid over the full image and are read at each cell's place in it, so crops, whole images and
    windows agree: grid (1, 1) is the image-level fusion's weight per channel, grid (h, w) with the whole image is one
    unshared weight per pixel, anything between is a low-rank locally-connected layer with hat bases (Elsayed et al. 2020).
    A weight is ``start`` + a delta that starts at 0, so weight decay pulls towards equal fusion.

    Args:
        branches: S.
        width: K.
        grid: (gh, gw).
        start: "sum" (every weight starts at 1) or "mean" (1/S).
        norm: batch norm before the ReLU.
    """

    def __init__(self, branches: int, width: int, grid: tuple[int, int] = (1, 1), start: str = "sum", norm: bool = False):
        super().__init__()
        self.start = 1.0 if start == "sum" else 1.0 / branches
        self.delta = nn.Parameter(torch.zeros(branches, width, *grid))
        self.bias = nn.Parameter(torch.zeros(width, *grid))
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()

    def forward(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Tensor:
        """Fuse.

        Args:
            branches: S maps (N, K, h_s, w_s), the finest first.
            region: (N, 4) x0, y0, x1, y1 of the finest map in the full image; None = the whole image.

        Returns:
            (N, K, h, w), the finest map's size.
        """
        size = branches[0].shape[-2:]
        weights, bias = self.read(region, size)
        fused = bias
        for branch, weight in zip(branches, weights):
            fused = torch.addcmul(fused, upsample(branch, size), weight)
        return F.relu(self.norm(fused))

    def read(self, region: Tensor | None, size: tuple[int, int]) -> tuple[list[Tensor], Tensor]:
        """The S weights and the bias at every cell: each (N or 1, K, h or 1, w or 1)."""
        maps = [*(self.delta + self.start), self.bias]
        if self.bias.shape[-2:] == (1, 1):
            return [m[None] for m in maps[:-1]], maps[-1][None]
        if region is None:
            region = self.bias.new_tensor([[0.0, 0.0, 1.0, 1.0]])
        *weights, bias = (read_grid(m, region, size) for m in maps)
        return weights, bias


class SumFusion(nn.Module):
    """f = ReLU(c sum_s U_s): no weights; c is 1 ("sum") or 1/S ("mean")."""

    def __init__(self, branches: int, width: int, grid: tuple[int, int] = (1, 1), start: str = "sum", norm: bool = False):
        super().__init__()
        self.start = 1.0 if start == "sum" else 1.0 / branches
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()

    def forward(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Tensor:
        """See `LocallyConnectedFusion.forward`; ``region`` does not matter."""
        size = branches[0].shape[-2:]
        return F.relu(self.norm(self.start * sum(upsample(b, size) for b in branches)))


class ConvFusion(nn.Module):
    """f = ReLU(sum_s w[s] U_s + b): one weight per branch, shared over channels and places (HED's fusion)."""

    def __init__(self, branches: int, width: int, grid: tuple[int, int] = (1, 1), start: str = "sum", norm: bool = False):
        super().__init__()
        self.start = 1.0 if start == "sum" else 1.0 / branches
        self.delta = nn.Parameter(torch.zeros(branches))
        self.bias = nn.Parameter(torch.zeros(()))
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()

    def forward(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Tensor:
        """See `LocallyConnectedFusion.forward`; ``region`` does not matter."""
        size = branches[0].shape[-2:]
        fused = sum((w + self.start) * upsample(b, size) for w, b in zip(self.delta, branches))
        return F.relu(self.norm(fused + self.bias))


FUSIONS: dict[str, Callable[..., nn.Module]] = {
    "lc": LocallyConnectedFusion,
    "sum": SumFusion,
    "conv": ConvFusion,
}


def build_fusion(name: str, **settings) -> nn.Module:
    """The fusion called ``name``; an unknown one raises UserError with the names there are."""
    if name not in FUSIONS:
        raise UserError(f"model.fusion {name!r} is unknown; there are {', '.join(FUSIONS)}", code=2)
    return FUSIONS[name](**settings)
