"""Locally-connected fusion with shuffled positions: the control that has the parameters but not the place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cfnseg.models.fusion.lc import LocallyConnectedFusion

LATTICE = 32  # places per side that are shuffled: a few cells of the finest stage each


class ShuffledFusion(LocallyConnectedFusion):
    """`LocallyConnectedFusion` whose pixels read the grid at the place of another pixel: a fixed random permutation.

    The grid is read at LATTICE x LATTICE places over the full image and these are permuted. Neighbours then share nothing
    and a coarse grid can follow no place, while parameters and start stay the same; it costs more, as the grid that is read is
    the lattice. (Permuting the cells of the grid itself would only rename them.) Arguments as `LocallyConnectedFusion`.
    """

    def __init__(self, branches: int, width: int, grid: tuple[int, int] = (1, 1), start: str = "sum", norm: str = "none",
                 relu: bool = True) -> None:
        super().__init__(branches, width, grid, start, norm, relu)
        self.register_buffer("places", torch.randperm(LATTICE**2, generator=torch.Generator().manual_seed(0)))

    def grids(self) -> tuple[Tensor, Tensor]:
        """Weight (S, K, LATTICE, LATTICE) and bias, permuted."""
        weight, bias = super().grids()
        return self._shuffle(weight), self._shuffle(bias[None])[0]

    def _shuffle(self, grid: Tensor) -> Tensor:
        lattice = F.interpolate(grid, (LATTICE, LATTICE), mode="bilinear", align_corners=False)
        return lattice.flatten(2)[..., self.places].view(lattice.shape)
