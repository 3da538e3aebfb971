"""TensorFlow's "same" padding as constants, for backbones whose input sides are multiples of their strides."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn


def constant_padding(body: nn.Module) -> nn.Module:
    """Replace each "same" convolution in ``body`` by one whose padding is a constant; the weights stay.

    timm derives the padding from the size of every input. Where the stride divides the size it is always the
    same, and a traced size then stays a simple expression: with timm's, an export takes minutes.
    """
    for name, part in list(body.named_modules()):
        if type(part) is Conv2dSame:
            parent, _, own = name.rpartition(".")
            setattr(body.get_submodule(parent), own, _Padded(part))
    return body


class _Padded(nn.Conv2d):
    """A "same" convolution for (N, C, h, w) with h, w multiples of the stride."""

    def __init__(self, conv: Conv2dSame) -> None:
        # on "meta": drawing weights that are replaced at once would change those of later layers
        super().__init__(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, 0, conv.dilation, conv.groups,
                         conv.bias is not None, device=torch.device("meta"))
        self.weight, self.bias = conv.weight, conv.bias
        self.around = []
        for kernel, stride, dilation in zip(conv.kernel_size[::-1], conv.stride[::-1], conv.dilation[::-1]):
            total = max((kernel - 1) * dilation + 1 - stride, 0)
            self.around += [total // 2, total - total // 2]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.around))
