"""Locally-connected fusion: a weight per branch and channel at every place."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from cfnseg.models.fusion.base import Fusion
from cfnseg.ops import lc_fuse


class LocallyConnectedFusion(Fusion):
    """f[k,i,j] = ReLU(sum_s w[s,k,i,j] U_s[k,i,j] + b[k,i,j]).

    The weights lie on a grid over the full image. Each cell reads them at its own place, so crops,
    windows and whole images agree. Grid (1, 1) is one weight per channel, as in the image head. A
    grid of the map's size is one unshared weight per cell. Anything between is a low-rank
    locally-connected layer with hat bases (Elsayed et al. 2020).

    A weight is ``start`` + delta, and delta starts at 0: weight decay pulls towards equal fusion.

    Arguments as `Fusion`. Source: MMM 2017 slides and the authors' configuration for the image
    head; the grid is our construction.
    """

    def __init__(
        self, branches: int, width: int, grid: tuple[int, int] = (1, 1), **settings
    ) -> None:
        super().__init__(branches, width, **settings)
        self.delta = nn.Parameter(torch.zeros(branches, width, *grid))
        self.bias = nn.Parameter(torch.zeros(width, *grid)) if self.biased else None

    def forward(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Tensor:
        """See `Fusion.forward`; one operation in place of the sum of `terms`."""
        region, size = self.placed(branches[0].shape[0], region), tuple(branches[0].shape[-2:])
        plain = isinstance(self.norm, nn.Identity)
        weight, bias = self.grids()
        fused = lc_fuse(branches, weight, bias, region, size, relu=self.relu and plain)
        return fused if plain else self.finish(fused)

    def terms(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Iterator[Tensor]:
        """See `Fusion.terms`."""
        size, (weight, bias) = tuple(branches[0].shape[-2:]), self.grids()
        read = functools.partial(lc_fuse, region=region, size=size, relu=False)
        for branch, grid in zip(branches, weight.split(1)):
            yield read([branch], grid, torch.zeros_like(bias))
        if self.bias is not None:
            nothing = torch.zeros_like(branches[0][..., :1, :1])
            yield read([nothing], weight[:1], bias)

    def grids(self) -> tuple[Tensor, Tensor]:
        """Weight (S, K, gh, gw) and bias (K, gh, gw) over the full image."""
        bias = torch.zeros_like(self.delta[0]) if self.bias is None else self.bias
        return self.delta + self.start, bias
