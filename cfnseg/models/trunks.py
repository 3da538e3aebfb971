"""The authors' image-level nets up to their last pooling: trunks whose stages get a side branch each.

Source: the authors' Caffe configurations (github yuLiu24/CFN, examples/cifar and examples/imagenet).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cfnseg.models.encoder import Encoder


class CifarNet(nn.Module):
    """Seven convolutions less the last: 3x3-96 x2, max-pool, 3x3-192 x2, average-pool, 3x3-192 x2; dropout .5 after either pool.

    Stages: after each pool with its dropout, and the last convolution's output. No batch norm; weights start N(0, .05). The
    input is normalised by global contrast normalisation (Goodfellow et al. 2013): per image, mean 0 and length 55.

    Args:
        first: channels of the first stage; 96 for CIFAR-10, 192 for CIFAR-100.

    Attributes:
        channels: of the stages.
        receive_norm, head_std: how the authors build side branches (batch norm or not) and start the classifier.
    """

    receive_norm, head_std = False, 0.1

    def __init__(self, first: int = 96) -> None:
        super().__init__()
        self.channels = [first, 192, 192]
        self.stages = nn.ModuleList([
            nn.Sequential(*_conv(3, first), *_conv(first, first), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(0.5)),
            nn.Sequential(*_conv(first, 192), *_conv(192, 192), nn.AvgPool2d(3, 2, ceil_mode=True), nn.Dropout(0.5)),
            nn.Sequential(*_conv(192, 192), *_conv(192, 192))])

    @property
    def normalisation(self) -> dict[str, object]:
        """What a weights file says of the input."""
        return {"contrast": "per image, length 55"}

    def forward(self, images: Tensor) -> list[Tensor]:
        """Stage maps of (N, 3, H, W) RGB, uint8 in 0..255 or float in 0..1."""
        x = global_contrast(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def _conv(channels: int, width: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, width, 3, padding=1)
    nn.init.normal_(conv.weight, std=0.05)
    nn.init.zeros_(conv.bias)
    return [conv, nn.ReLU(inplace=True)]


def global_contrast(images: Tensor, length: float = 55.0) -> Tensor:
    """Each of (N, 3, H, W) images less its mean, scaled to the Euclidean ``length``; a constant image becomes 0."""
    x = images.float()
    x = x - x.mean((1, 2, 3), keepdim=True)
    norm = x.square().sum((1, 2, 3), keepdim=True).sqrt()
    return x * (length / norm.clamp_min(1e-4))


class Cfn11(nn.Module):
    """Ten convolutions less the last, for ImageNet at 224: 7x7-64, then two 3x3 of 64, 128, 256, 512, each with batch norm.

    Stages: pool2, pool3, pool4 and the last convolution's output.
    """

    receive_norm, head_std = True, math.sqrt(1 / 1024)  # Caffe's "xavier": variance 1 / fan-in

    def __init__(self) -> None:
        super().__init__()
        self.channels = [64, 128, 256, 512]
        stem = nn.Conv2d(3, 64, 7, 2, 3)
        nn.init.constant_(stem.bias, 0.2)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(64), nn.ReLU(inplace=True), _pool())
        widths = [64, *self.channels]
        self.stages = nn.ModuleList(nn.Sequential(*_conv_norm(a, b), *_conv_norm(b, b)) for a, b in zip(widths, widths[1:]))
        self.pool = _pool()
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                bound = math.sqrt(3 / conv.weight[0].numel())
                nn.init.uniform_(conv.weight, -bound, bound)
        self.register_buffer("mean", torch.tensor([123.0, 117.0, 104.0]).view(1, 3, 1, 1) / 255, persistent=False)
        self.register_buffer("std", torch.full((1, 3, 1, 1), 1 / 255), persistent=False)

    @property
    def normalisation(self) -> dict[str, object]:
        """What a weights file says of the input."""
        return {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}

    def forward(self, images: Tensor) -> list[Tensor]:
        """Stage maps of (N, 3, H, W) RGB, uint8 in 0..255 or float in 0..1."""
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        x = self.stem((x - self.mean) / self.std)
        maps = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i < 3:
                x = self.pool(x)
            maps.append(x)
        return maps


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def _conv_norm(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


TRUNKS: dict[str, Callable[[], nn.Module]] = {
    "cifar_net": CifarNet,
    "cifar_net_192": lambda: CifarNet(192),
    "cfn11": Cfn11,
}


def build_trunk(name: str, strides: tuple[int, ...], weights: str | None) -> nn.Module:
    """One of TRUNKS, or the timm backbone of that name with its stages at ``strides``."""
    return TRUNKS[name]() if name in TRUNKS else Encoder(name, strides, weights)
