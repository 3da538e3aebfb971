"""The authors' classification nets up to the last pooling: encoders whose stages get side branches.

Source: the authors' Caffe configurations (github yuLiu24/CFN, examples/cifar, examples/imagenet).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from cfnseg.models.encoder import Encoder, Normalised
from cfnseg.models.parts import SideBranch


class CifarNet(nn.Module):
    """3x3-96 x2, max-pool, 3x3-192 x2, average-pool, 3x3-192 x2; dropout .5 after either pool.

    Stages: after each pool with its dropout, and the last convolution. No batch norm; weights start
    N(0, .05). Each image has global contrast normalisation (Goodfellow et al. 2013): mean 0, length
    55.

    Args:
        first: channels of the first stage; 96 for CIFAR-10, 192 for CIFAR-100.

    Attributes:
        channels: of the stages.
        strides: 1 for each, as no stage is padded and pooling covers all its cells.
        receive_norm, head_std: batch norm in side branches; the classifier starts N(0, head_std).
    """

    receive_norm, head_std, strides = False, 0.1, (1, 1, 1)
    normalisation: ClassVar = {"contrast": "per image, length 55"}  # of a weights file's header

    def __init__(self, first: int = 96) -> None:
        super().__init__()
        self.channels = [first, 192, 192]
        most, mean = nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 2, ceil_mode=True)
        conv = functools.partial(SideBranch, kernel=3, norm=False)  # the same layer and start
        self.stages = nn.ModuleList([
            nn.Sequential(*conv(3, first), *conv(first, first), most, nn.Dropout(0.5)),
            nn.Sequential(*conv(first, 192), *conv(192, 192), mean, nn.Dropout(0.5)),
            nn.Sequential(*conv(192, 192), *conv(192, 192)),
        ])  # fmt: skip

    def forward(self, images: Tensor) -> list[Tensor]:
        """Stage maps of (N, 3, H, W) RGB, uint8 in 0..255 or float in 0..1."""
        return _maps(self.stages, global_contrast(images))


def _maps(stages: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """The output of each stage, the first on ``x``."""
    maps = [x]
    for stage in stages:
        maps.append(stage(maps[-1]))
    return maps[1:]


def global_contrast(images: Tensor, length: float = 55.0) -> Tensor:
    """(N, 3, H, W) images less their mean, each at Euclidean ``length``; a constant one is 0."""
    x = images.float()
    x = x - x.mean((1, 2, 3), keepdim=True)
    norm = x.square().sum((1, 2, 3), keepdim=True).sqrt()
    return x * (length / norm.clamp_min(1e-4))


class Cfn11(Normalised):
    """For ImageNet at 224: 7x7-64, then two 3x3 of 64, 128, 256, 512 each, all with batch norm.

    Stages: pool2, pool3, pool4 and the last convolution. Attributes as `CifarNet`.
    """

    receive_norm, strides = True, (1, 1, 1, 1)
    head_std = math.sqrt(1 / 1024)  # Caffe's "xavier": variance 1 / fan-in

    def __init__(self) -> None:
        super().__init__([123 / 255, 117 / 255, 104 / 255], [1 / 255] * 3)
        self.channels = [64, 128, 256, 512]
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        stem = nn.Conv2d(3, 64, 7, 2, 3)
        nn.init.constant_(stem.bias, 0.2)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(64), nn.ReLU(inplace=True), pool)
        widths = [64, *self.channels]
        self.stages = nn.ModuleList(
            nn.Sequential(*_conv_norm(a, b), *_conv_norm(b, b), *([pool] if b < 512 else []))
            for a, b in zip(widths, widths[1:])
        )
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                bound = math.sqrt(3 / conv.weight[0].numel())
                nn.init.uniform_(conv.weight, -bound, bound)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Stage maps of (N, 3, H, W) RGB, uint8 in 0..255 or float in 0..1."""
        return _maps(self.stages, self.stem(self.normalised(images)))


def _conv_norm(channels: int, width: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


AUTHORS: dict[str, Callable[[], nn.Module]] = {
    "cifar_net": CifarNet,
    "cifar_net_192": lambda: CifarNet(192),
    "cfn11": Cfn11,
}


def build_encoder(name: str, strides: tuple[int, ...], weights: str | None) -> nn.Module:
    """One of AUTHORS, or the timm backbone ``name`` with its stages at ``strides``."""
    return AUTHORS[name]() if name in AUTHORS else Encoder(name, strides, weights)
