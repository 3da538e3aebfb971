"""Input-dependent fusion: the control whose weights follow the content, not the place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from cfnseg.models.fusion.base import Fusion
from cfnseg.ops import upsample


class AdaptiveFusion(Fusion):
    """f = ReLU(c sum_s a_s U_s), a = softmax over branches of 1x1 convolutions of the branches.

    After ASFF (Liu, Huang, Wang 2019, section 3.2): the weights are shared over channels and sum
    to 1. c is S ("sum") or 1 ("mean"), and the convolutions start at 0: every branch starts with
    its weight in the other fusions. Arguments as `Fusion`.
    """

    def __init__(self, branches: int, width: int, **settings) -> None:
        super().__init__(branches, width, **settings)
        norm = self._modules.pop("norm")
        self.score = nn.ModuleList(nn.Conv2d(width, branches, 1) for _ in range(branches))
        self.norm = norm  # after score: an optimizer's state knows parameters by their order
        for parameter in self.score.parameters():
            nn.init.zeros_(parameter)

    def terms(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Iterator[Tensor]:
        """See `Fusion.terms`."""
        size = tuple(branches[0].shape[-2:])
        # upsampling commutes with a 1x1 convolution, and S channels cost less than K
        scores: Tensor = sum(upsample(conv(b), size) for conv, b in zip(self.score, branches))
        kind = torch.promote_types(scores.dtype, torch.float32)
        share = torch.softmax(scores, 1, kind).to(scores.dtype) * (self.start * len(branches))
        yield from (upsample(b, size) * share[:, s : s + 1] for s, b in enumerate(branches))
