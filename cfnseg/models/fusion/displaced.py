"""Locally-connected fusion at a place drawn anew for each sample: the control without the place."""

from __future__ import annotations

import torch
from torch import Tensor

from cfnseg.models.fusion.lc import LocallyConnectedFusion


class DisplacedFusion(LocallyConnectedFusion):
    """`LocallyConnectedFusion` that reads its grid somewhere else for each sample.

    The grid is continued by reflection, and the sample's region is moved by a distance drawn
    uniformly over a period. So every cell's place is uniform over the grid, whatever its own:
    parameters, start and smoothness stay the same, and nothing can be learnt of the place. (A
    fixed shuffle of places can: it is a map that training learns to read.)

    The distance is drawn in evaluation too, by torch's default generator. Arguments as `Fusion`.
    """

    def placed(self, count: int, region: Tensor | None) -> Tensor:
        """(N, 4) moved regions in the reflected grid, three tiles a side."""
        device = self.delta.device
        size = 1.0 if region is None else (region[:, 2:] - region[:, :2]).abs()
        start = 2 * torch.rand(count, 2, device=device)
        return torch.cat([start, start + size], 1) / 3

    def grids(self) -> tuple[Tensor, Tensor]:
        """Weight (S, K, 3 gh, 3 gw) and bias (K, 3 gh, 3 gw): the grid, its mirror, the grid."""
        weight, bias = (_reflected(grid) for grid in super().grids())
        return weight, bias


def _reflected(grid: Tensor) -> Tensor:
    for axis in (-2, -1):
        grid = torch.cat([grid, grid.flip(axis), grid], axis)
    return grid
