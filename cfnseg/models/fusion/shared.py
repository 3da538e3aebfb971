"""Fusions whose weights are shared over places and channels: sum and convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cfnseg.models.fusion.norm import build_norm, finish
from cfnseg.ops import upsample


class SumFusion(nn.Module):
    """f = ReLU(c sum_s U_s): no weights; c is 1 ("sum") or 1/S ("mean"). Arguments as `LocallyConnectedFusion`."""

    def __init__(self, branches: int, width: int, grid: tuple[int, int] = (1, 1), start: str = "sum", norm: str = "none",
                 relu: bool = True) -> None:
        super().__init__()
        self.start = 1.0 if start == "sum" else 1.0 / branches
        self.norm = build_norm(norm, width)
        self.relu = relu

    def forward(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Tensor:
        """See `LocallyConnectedFusion.forward`; ``region`` does not matter."""
        size = tuple(branches[0].shape[-2:])
        return finish(self.start * sum(upsample(b, size) for b in branches), self.norm, self.relu)


class ConvFusion(nn.Module):
    """f = ReLU(sum_s w[s] U_s + b): one weight per branch, shared over channels and places (HED, Xie and Tu 2015, section 2.2).

    Arguments as `LocallyConnectedFusion`.
    """

    def __init__(self, branches: int, width: int, grid: tuple[int, int] = (1, 1), start: str = "sum", norm: str = "none",
                 relu: bool = True) -> None:
        super().__init__()
        self.start = 1.0 if start == "sum" else 1.0 / branches
        self.delta = nn.Parameter(torch.zeros(branches))
        self.bias = None if norm == "single" else nn.Parameter(torch.zeros(()))
        self.norm = build_norm(norm, width)
        self.relu = relu

    def forward(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Tensor:
        """See `LocallyConnectedFusion.forward`; ``region`` does not matter."""
        size = tuple(branches[0].shape[-2:])
        fused = sum((w + self.start) * upsample(b, size) for w, b in zip(self.delta, branches))
        return finish(fused if self.bias is None else fused + self.bias, self.norm, self.relu)
