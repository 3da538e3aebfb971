"""Locally-connected fusion with shuffled positions: the control that has the parameters but not the place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.models.fusion.norm import build_norm, finish
from cfnseg.ops import lc_fuse

LATTICE = 32  # places per side that are shuffled: a few cells of the finest stage each


class ShuffledFusion(nn.Module):
    """`LocallyConnectedFusion` whose pixels read the grid at the place of another pixel: a fixed random permutation.

    The grid is read at LATTICE x LATTICE places over the full image and these are permuted. Neighbours then share nothing
    and a coarse grid can follow no place, while parameters and start stay the same; it costs more, as the grid that is read is
    the lattice. (Permuting the cells of the grid itself would only rename them.) Arguments as `LocallyConnectedFusion`.
    """

    def __init__(self, branches: int, width: int, grid: tuple[int, int] = (1, 1), start: str = "sum", norm: str = "none",
                 relu: bool = True) -> None:
        super().__init__()
        self.start = 1.0 if start == "sum" else 1.0 / branches
        self.delta = nn.Parameter(torch.zeros(branches, width, *grid))
        self.bias = None if norm == "single" else nn.Parameter(torch.zeros(width, *grid))
        self.norm = build_norm(norm, width)
        self.relu = relu
        places = torch.randperm(LATTICE**2, generator=torch.Generator().manual_seed(0))
        self.register_buffer("places", places)

    def forward(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Tensor:
        """See `LocallyConnectedFusion.forward`."""
        plain = isinstance(self.norm, nn.Identity)
        size = tuple(branches[0].shape[-2:])
        weight = self._shuffle(self.delta) + self.start
        bias = torch.zeros_like(weight[0]) if self.bias is None else self._shuffle(self.bias[None])[0]
        fused = lc_fuse(branches, weight, bias, region, size, relu=self.relu and plain)
        return fused if plain else finish(fused, self.norm, self.relu)

    def _shuffle(self, grid: Tensor) -> Tensor:
        lattice = F.interpolate(grid, (LATTICE, LATTICE), mode="bilinear", align_corners=False)
        return lattice.flatten(2)[..., self.places].view(lattice.shape)
