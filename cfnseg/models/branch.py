"""Side branches: receive a stage by a 1x1 convolution, send it on by global average pooling or upsampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SideBranch(nn.Sequential):
    """Receive: F_s = ReLU([BN] conv_K(P_s)), the convolution 1x1.

    It keeps a branch cheap (MMM 2017 slides, "efficient side branches"); the batch norm is that of the authors' ImageNet net.
    Sending is `send_image` here, and the upsampling inside the pixel-level fusion.

    Args:
        in_channels: channels of the stage.
        width: K, channels of the branch; the same for every branch.
        kernel: 1, or 3 in the authors' CIFAR-100 net.
        norm: batch norm; without it, as in the authors' CIFAR nets, the convolution has a bias and starts N(0, .05).
    """

    def __init__(self, in_channels: int, width: int, kernel: int = 1, norm: bool = True) -> None:
        conv = nn.Conv2d(in_channels, width, kernel, padding=kernel // 2, bias=not norm)
        super().__init__(conv, *([nn.BatchNorm2d(width)] if norm else []), nn.ReLU(inplace=True))
        if norm:
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        else:
            nn.init.normal_(conv.weight, std=0.05)
            nn.init.zeros_(conv.bias)


def send_image(branch: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Send to the image level: global average pooling over the cells that cover the image.

    Args:
        branch: (N, K, h, w) at ``stride``, possibly of a padded image.
        stride: pixels per cell.
        size: (H, W) of the image without its padding.

    Returns:
        (N, K, 1, 1): a feature map of one cell, so that one fusion serves both levels.
    """
    return cropped(branch, stride, size).mean((2, 3), keepdim=True)


def cropped(cells: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """The (N, C, ceil(H / s), ceil(W / s)) cells that cover an image of ``size``, of those of its padded form."""
    height, width = ((n + stride - 1) // stride for n in size)
    if torch.compiler.is_exporting():  # a slice would freeze whether it is contiguous, and so whether the image was padded
        rows, columns = (torch.arange(n, device=cells.device) for n in (height, width))
        return cells.index_select(2, rows).index_select(3, columns)
    return cells[..., :height, :width]
