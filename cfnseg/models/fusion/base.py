"""The base of every fusion, and the two whose weights ignore channel and place: sum and conv."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.errors import unknown
from cfnseg.ops import upsample


class SingleChannelNorm(nn.Module):
    """Batch norm with one mean and variance over (N, K, h, w), as in the authors' ImageNet net."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, h, w) to the same shape."""
        return self.norm(x.reshape(len(x), 1, x.shape[1], -1)).view(x.shape)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": nn.Identity,
    "channel": nn.BatchNorm2d,
    "single": lambda width: SingleChannelNorm(),
}


class Fusion(nn.Module):
    """Base of fusions: S branches in, one map at the finest branch's size out.

    A subclass defines `terms`. At the start every branch has the weight ``self.start``.

    Args:
        branches: S.
        width: K (EFLP), or C where class scores are fused (EPLF).
        grid: (gh, gw) of weights by place; most fusions ignore it.
        start: every weight starts at 1 ("sum") or 1/S ("mean").
        norm: batch norm of the fused map: "none", "channel" or "single" (`SingleChannelNorm`, and
            as in the authors' net no bias).
        relu: ReLU at the end; False for class scores, which may be negative.

    Raises:
        UserError: an unknown norm, with the nearest names.
    """

    def __init__(
        self,
        branches: int,
        width: int,
        grid: tuple[int, int] = (1, 1),
        start: str = "sum",
        norm: str = "none",
        relu: bool = True,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise unknown("model.fusion_norm", norm, NORMS)
        self.shape = branches, width
        self.start = 1.0 if start == "sum" else 1.0 / branches
        self.relu = relu
        self.norm = NORMS[norm](width)
        self.biased = norm != "single"

    def forward(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Tensor:
        """Fuse.

        Args:
            branches: S maps (N, K, h_s, w_s), the finest first.
            region: (N, 4) x0, y0, x1, y1 of the finest map in the full image; None = the whole
                image. Only fusions with weights by place read it.

        Returns:
            (N, K, h, w), the finest map's size.
        """
        terms = self.terms(branches, self.placed(branches[0].shape[0], region))
        return self.finish(functools.reduce(torch.add, terms))

    def terms(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Iterator[Tensor]:
        """What `finish` gets the sum of: w_s U_s for each branch, then the bias where there is one.

        Args:
            branches: as in `forward`.
            region: of `placed`.

        Yields:
            S maps (N, K, h, w), and a bias that broadcasts to it; made one at a time.
        """
        raise NotImplementedError

    def placed(self, count: int, region: Tensor | None) -> Tensor | None:
        """The place where ``count`` images of ``region`` read their weights: their own."""
        return region

    def finish(self, fused: Tensor) -> Tensor:
        """The norm, then the ReLU."""
        return F.relu(self.norm(fused)) if self.relu else self.norm(fused)


class SumFusion(Fusion):
    """f = ReLU(c sum_s U_s): no weights; c is 1 ("sum") or 1/S ("mean")."""

    def terms(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Iterator[Tensor]:
        """See `Fusion.terms`."""
        size = tuple(branches[0].shape[-2:])
        for branch in branches:
            yield upsample(branch if self.start == 1 else self.start * branch, size)


class ConvFusion(Fusion):
    """f = ReLU(sum_s w[s] U_s + b): one weight per branch (HED, Xie and Tu 2015, section 2.2)."""

    delta: Tensor
    bias: Tensor | None

    def __init__(self, branches: int, width: int, **settings) -> None:
        super().__init__(branches, width, **settings)
        self.delta = nn.Parameter(torch.zeros(branches))
        self.bias = nn.Parameter(torch.zeros(())) if self.biased else None

    def terms(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Iterator[Tensor]:
        """See `Fusion.terms`."""
        size = tuple(branches[0].shape[-2:])
        yield from ((w + self.start) * upsample(b, size) for w, b in zip(self.delta, branches))
        if self.bias is not None:
            yield self.bias
