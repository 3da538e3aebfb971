"""Locally-connected fusion at shuffled places: the control with the parameters, not the place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cfnseg.models.fusion.lc import LocallyConnectedFusion

LATTICE = 32  # shuffled places per side, each a few cells of the finest stage


class ShuffledFusion(LocallyConnectedFusion):
    """`LocallyConnectedFusion` that reads its grid at the place of another pixel.

    The grid is read at LATTICE x LATTICE places, and one fixed random permutation shuffles them.
    Neighbours then share nothing, while parameters and start stay the same. (A permutation of the
    grid's own cells would only rename them.) It costs more: the grid that is read is the lattice.
    Arguments as `Fusion`.
    """

    def __init__(
        self, branches: int, width: int, grid: tuple[int, int] = (1, 1), **settings
    ) -> None:
        super().__init__(branches, width, grid, **settings)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("places", torch.randperm(LATTICE**2, generator=generator))

    def grids(self) -> tuple[Tensor, Tensor]:
        """Weight (S, K, LATTICE, LATTICE) and bias (K, LATTICE, LATTICE), permuted."""
        weight, bias = super().grids()
        return self._shuffle(weight), self._shuffle(bias[None])[0]

    def _shuffle(self, grid: Tensor) -> Tensor:
        size = (LATTICE, LATTICE)
        lattice = F.interpolate(grid, size, mode="bilinear", align_corners=False)
        return lattice.flatten(2)[..., self.places].view(lattice.shape)
