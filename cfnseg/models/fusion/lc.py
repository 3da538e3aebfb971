"""Locally-connected fusion: a weight per branch and channel at every place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cfnseg.models.fusion.norm import build_norm, finish
from cfnseg.ops import lc_fuse


class LocallyConnectedFusion(nn.Module):
    """f[k,i,j] = ReLU(sum_s w[s,k,i,j] U_s[k,i,j] + b[k,i,j]): a weight per branch and channel at every pixel.

    The weights live on a grid over the full image and are read at each cell's place in it, so crops, whole images and
    windows agree: grid (1, 1) is the image-level fusion's weight per channel, grid (h, w) with the whole image is one
    unshared weight per pixel, anything between is a low-rank locally-connected layer with hat bases (Elsayed et al. 2020).
    A weight is ``start`` + a delta that starts at 0, so weight decay pulls towards equal fusion. Source: MMM 2017 slides and
    the authors' configuration for the image level; the grid is our construction.

    Args:
        branches: S.
        width: K (EFLP), or C where class scores are fused (EPLF).
        grid: (gh, gw).
        start: "sum" (every weight starts at 1) or "mean" (1/S).
        norm: "none", "channel" or "single" batch norm after the sum; with the authors' "single" there is no bias.
        relu: ReLU at the end; False for class scores, which may be negative.
    """

    def __init__(self, branches: int, width: int, grid: tuple[int, int] = (1, 1), start: str = "sum", norm: str = "none",
                 relu: bool = True) -> None:
        super().__init__()
        self.start = 1.0 if start == "sum" else 1.0 / branches
        self.delta = nn.Parameter(torch.zeros(branches, width, *grid))
        self.bias = None if norm == "single" else nn.Parameter(torch.zeros(width, *grid))
        self.norm = build_norm(norm, width)
        self.relu = relu

    def forward(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Tensor:
        """Fuse.

        Args:
            branches: S maps (N, K, h_s, w_s), the finest first.
            region: (N, 4) x0, y0, x1, y1 of the finest map in the full image; None = the whole image.

        Returns:
            (N, K, h, w), the finest map's size.
        """
        plain = isinstance(self.norm, nn.Identity)
        weight, bias = self.grids()
        size = tuple(branches[0].shape[-2:])
        fused = lc_fuse(branches, weight, bias, region, size, relu=self.relu and plain)
        return fused if plain else finish(fused, self.norm, self.relu)

    def grids(self) -> tuple[Tensor, Tensor]:
        """Weight (S, K, gh, gw) and bias (K, gh, gw) as they lie over the full image."""
        return self.delta + self.start, torch.zeros_like(self.delta[0]) if self.bias is None else self.bias
