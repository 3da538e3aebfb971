"""What may stand between a fusion's sum and its ReLU."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.errors import unknown

NORMS = ("none", "channel", "single")


class SingleChannelNorm(nn.Module):
    """Batch norm with one mean and one variance over (N, K, h, w) whole, as the authors' ImageNet net has it after the fusion."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, h, w) to the same."""
        return self.norm(x.reshape(len(x), 1, x.shape[1], -1)).view(x.shape)


def build_norm(kind: str, width: int) -> nn.Module:
    """"none": the identity; "channel": batch norm per channel; "single": `SingleChannelNorm`. UserError for another."""
    if kind not in NORMS:
        raise unknown("model.fusion_norm", kind, NORMS)
    return nn.Identity() if kind == "none" else nn.BatchNorm2d(width) if kind == "channel" else SingleChannelNorm()


def finish(fused: Tensor, norm: nn.Module, relu: bool) -> Tensor:
    """The norm, then ReLU where asked."""
    return F.relu(norm(fused)) if relu else norm(fused)
