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
from cfnseg.ops import lc_fuse, upsample


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
        plain = isinstance(self.norm, nn.Identity)
        fused = lc_fuse(branches, self.delta + self.start, self.bias, region, tuple(branches[0].shape[-2:]), relu=plain)
        return fused if plain else F.relu(self.norm(fused))


class SumFusion(nn.Module):
    """f = ReLU(c sum_s U_s): no weights; c is 1 ("sum") or 1/S ("mean")."""

    def __init__(self, branches: int, width: int, grid: tuple[int, int] = (1, 1), start: str = "sum", norm: bool = False):
        super().__init__()
        self.start = 1.0 if start == "sum" else 1.0 / branches
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()

    def forward(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Tensor:
        """See `LocallyConnectedFusion.forward`; ``region`` does not matter."""
        size = tuple(branches[0].shape[-2:])
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
        size = tuple(branches[0].shape[-2:])
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
