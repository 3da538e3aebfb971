"""Side branches: receive a stage by a 1x1 convolution, send it on by global average pooling or upsampling."""

from __future__ import annotations

from torch import Tensor, nn


class SideBranch(nn.Sequential):
    """Receive: F_s = ReLU(BN(conv1x1_K(P_s))).

    The 1x1 convolution keeps a branch cheap (MMM 2017 slides, "efficient side branches"); the batch norm is that of the
    authors' ImageNet net. Sending is `send_image` here, and the upsampling inside the pixel-level fusion.

    Args:
        in_channels: channels of the stage.
        width: K, channels of the branch; the same for every branch.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__(nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        nn.init.kaiming_normal_(self[0].weight, mode="fan_out", nonlinearity="relu")


def send_image(branch: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Send to the image level: global average pooling over the cells that cover the image.

    Args:
        branch: (N, K, h, w) at ``stride``, possibly of a padded image.
        stride: pixels per cell.
        size: (H, W) of the image without its padding.

    Returns:
        (N, K, 1, 1): a feature map of one cell, so that one fusion serves both levels.
    """
    height, width = (-(-n // stride) for n in size)
    return branch[..., :height, :width].mean((2, 3), keepdim=True)
