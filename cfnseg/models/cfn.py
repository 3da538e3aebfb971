"""The Convolutional Fusion Network: receive (1x1 conv) -> send (upsample | GAP) -> fuse over branches -> predict."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cfnseg.models.branch import SideBranch, send_image
from cfnseg.models.encoder import Encoder
from cfnseg.models.fusion import build_fusion


class Output(NamedTuple):
    """What every segmentation model here returns.

    Attributes:
        pixel: (N, C, ceil(H / s), ceil(W / s)) class logits at the finest stage's stride s; cell i covers pixels s*i to
            s*i + s - 1. `cfnseg.ops` takes them to the image's size without storing (N, C, H, W).
        image: (N, C) multi-label logits: is the class anywhere in the image?
    """

    pixel: Tensor
    image: Tensor


class CFN(nn.Module):
    """Pixel-level CFN with the image-level head beside it on the same side branches.

    Args:
        encoder: timm backbone name.
        num_classes: C.
        encoder_weights: see `cfnseg.models.encoder.load_encoder_weights`.
        strides: encoder stages that get a side branch; (32,) is the plain net.
        width: K, channels of each branch.
        fusion: "lc", "sum" or "conv".
        grid: cells of the locally-connected weights over the full image.
        start: fusion weights start at 1 ("sum") or 1/S ("mean").
        fusion_norm: batch norm between fusion and ReLU.
        dropout: probability before either head.

    Source: MMM 2017 slides and the authors' configuration for the image level; the pixel level follows the abstract of
    Liu, Guo, Lew 2018, "fully convolutional fusion network", with the weights' grid as our construction.
    """

    def __init__(self, encoder: str, num_classes: int, *, encoder_weights: str | None = None,
                 strides: tuple[int, ...] = (4, 8, 16, 32), width: int = 128, fusion: str = "lc",
                 grid: tuple[int, int] = (6, 8), start: str = "sum", fusion_norm: bool = False,
                 dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = Encoder(encoder, strides, encoder_weights)
        self.branches = nn.ModuleList(SideBranch(c, width) for c in self.encoder.channels)
        settings = {"branches": len(strides), "width": width, "start": start}
        self.fusion = build_fusion(fusion, grid=grid, norm=fusion_norm, **settings)
        self.image_fusion = build_fusion(fusion, **settings)
        self.dropout = dropout
        self.pixel_head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, num_classes, 1))
        self.image_head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(width, num_classes))
        for head in (self.pixel_head[-1], self.image_head[-1]):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        """Predict.

        Args:
            images: (N, 3, H, W) RGB, uint8 in 0..255 or float in 0..1; any H, W >= 32.
            region: (N, 4) float x0, y0, x1, y1: where each image lies in its full image, 1 = full width or height; it may
                leave [0, 1] where a crop is padded. None = each is a whole image.

        Returns:
            `Output` of class logits per cell and per image.
        """
        size = images.shape[-2:]
        stages = self.encoder(images)
        branches = [branch(stage) for branch, stage in zip(self.branches, stages)]
        fused = self.fusion(branches, padded_region(region, size, images))
        pooled = [send_image(b, s, size) for b, s in zip(branches, self.encoder.strides)]
        height, width = (-(-n // self.encoder.strides[0]) for n in size)
        return Output(self.pixel_head(fused)[..., :height, :width], self.image_head(self.image_fusion(pooled)))

    def parameter_table(self) -> dict[str, int]:
        """Number of parameters by part: encoder, branches, fusion, heads, total (the paper argues with it)."""
        parts = {"encoder": [self.encoder], "branches": [self.branches], "fusion": [self.fusion, self.image_fusion],
                 "heads": [self.pixel_head, self.image_head]}
        table = {name: sum(p.numel() for m in modules for p in m.parameters()) for name, modules in parts.items()}
        return table | {"total": sum(table.values())}


def padded_region(region: Tensor | None, size: tuple[int, int], images: Tensor) -> Tensor | None:
    """The region of the padded image (sides rounded up to 32) that the encoder sees, from that of the image itself."""
    height, width = size
    if height % 32 == 0 and width % 32 == 0:
        return region
    if region is None:
        region = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=images.device)
    x0, y0, x1, y1 = region.unbind(1)
    grown_x = (width + -width % 32) / width
    grown_y = (height + -height % 32) / height
    return torch.stack([x0, y0, x0 + (x1 - x0) * grown_x, y0 + (y1 - y0) * grown_y], 1)
