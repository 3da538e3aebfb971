"""Input-dependent fusion: the control that asks whether weights should follow the content in place of the place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cfnseg.models.fusion.norm import build_norm, finish
from cfnseg.ops import upsample


class AdaptiveFusion(nn.Module):
    """f = ReLU(c sum_s a_s U_s) with a = softmax over branches of 1x1 convolutions of the branches, at every pixel.

    After ASFF (Liu, Huang, Wang 2019, section 3.2): weights from the input, shared over channels, that sum to 1. c is S
    ("sum") or 1 ("mean"), and the convolutions start at zero, so that every branch starts with the weight that it has in the
    other fusions. Arguments as `LocallyConnectedFusion`.
    """

    def __init__(self, branches: int, width: int, grid: tuple[int, int] = (1, 1), start: str = "sum", norm: str = "none",
                 relu: bool = True) -> None:
        super().__init__()
        self.start = float(branches) if start == "sum" else 1.0
        self.score = nn.ModuleList(nn.Conv2d(width, branches, 1) for _ in range(branches))
        for conv in self.score:
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)
        self.norm = build_norm(norm, width)
        self.relu = relu

    def forward(self, branches: Sequence[Tensor], region: Tensor | None = None) -> Tensor:
        """See `LocallyConnectedFusion.forward`; ``region`` does not matter."""
        size = tuple(branches[0].shape[-2:])
        # a 1x1 convolution and bilinear upsampling commute, and S channels are cheaper to upsample than K
        scores = sum(upsample(conv(b), size) for conv, b in zip(self.score, branches))
        share = torch.softmax(scores, 1, torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype) * self.start
        fused = sum(upsample(b, size) * share[:, s : s + 1] for s, b in enumerate(branches))
        return finish(fused, self.norm, self.relu)
