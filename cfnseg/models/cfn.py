"""The Convolutional Fusion Network: receive (1x1 conv) -> send (upsample | GAP) -> fuse over branches -> predict."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cfnseg.models.branch import SideBranch, cropped, send_image
from cfnseg.models.encoder import Encoder
from cfnseg.models.head import Head
from cfnseg.models.segmenter import Network, Output


class CFN(Network):
    """Pixel-level CFN with the image-level head beside it on the same side branches.

    Args:
        encoder: timm backbone name.
        num_classes: C.
        encoder_weights: see `cfnseg.models.encoder.load_encoder_weights`.
        strides: encoder stages that get a side branch; (32,) is the plain net.
        width: K, channels of each branch.
        order: "eflp" fuses features and predicts once, "eplf" predicts from each branch and fuses scores.
        fusion: a name in `cfnseg.models.fusion.FUSIONS`.
        grid: cells of the locally-connected weights over the full image.
        start: fusion weights start at 1 ("sum") or 1/S ("mean").
        fusion_norm: batch norm after the pixel fusion's sum: "none", "channel" or "single" (one mean for all channels).
        dropout: probability before either head's predictors.
        side_losses: in EPLF, return each branch's own scores in training, for a loss on each (HED).
        test_scale: factor on image sides at validation and inference.

    Source: MMM 2017 slides and the authors' configuration for the image level; the pixel level follows the abstract of
    Liu, Guo, Lew 2018, "fully convolutional fusion network", with the weights' grid as our construction.
    """

    def __init__(self, encoder: str, num_classes: int, *, encoder_weights: str | None = None,
                 strides: tuple[int, ...] = (4, 8, 16, 32), width: int = 128, order: str = "eflp", fusion: str = "lc",
                 grid: tuple[int, int] = (6, 8), start: str = "sum", fusion_norm: str = "none", dropout: float = 0.1,
                 side_losses: bool = False, test_scale: float = 1.0) -> None:
        super().__init__(test_scale)
        self.encoder = Encoder(encoder, strides, encoder_weights)
        self.branches = nn.ModuleList(SideBranch(c, width) for c in self.encoder.channels)
        settings = {"fusion": fusion, "start": start, "dropout": dropout}
        self.pixel = Head(len(strides), width, num_classes, order, grid=grid, norm=fusion_norm, **settings)
        self.image = Head(len(strides), width, num_classes, order, **settings)
        self.side_losses = side_losses

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        """Predict.

        Args:
            images: (N, 3, H, W) RGB, uint8 in 0..255 or float in 0..1; any H, W >= 32. A program of `torch.export` with
                dynamic N, H, W takes H, W >= 33, as the exporter takes a map of one cell for a constant.
            region: (N, 4) float x0, y0, x1, y1: where each image lies in its full image, 1 = full width or height; it may
                leave [0, 1] where a crop is padded. None = each is a whole image.

        Returns:
            `Output` of class logits per cell and per image.
        """
        size = images.shape[-2:]
        branches = [branch(stage) for branch, stage in zip(self.branches, self.encoder(images))]
        pixel, scores = self.pixel(branches, padded_region(region, size, images, self.encoder.padding))
        image, _ = self.image([send_image(b, s, size) for b, s in zip(branches, self.encoder.strides)])
        side = tuple(cropped(x, s, size) for x, s in zip(scores, self.encoder.strides)) if self.side_losses and self.training else ()
        return Output(cropped(pixel, self.encoder.strides[0], size), image.flatten(1), side)


def padded_region(region: Tensor | None, size: tuple[int, int], images: Tensor, padding: int = 32) -> Tensor:
    """The region of the padded image (sides rounded up to ``padding``) that the encoder sees; None = the whole image."""
    height, width = size
    if region is None:
        region = torch.zeros(1, 4, device=images.device)
        region[:, 2:] = 1
    x0, y0, x1, y1 = region.unbind(1)
    # no branch on the size: an exporter would freeze it
    grown_x = (width + padding - 1) // padding * padding / width
    grown_y = (height + padding - 1) // padding * padding / height
    return torch.stack([x0, y0, x0 + (x1 - x0) * grown_x, y0 + (y1 - y0) * grown_y], 1)
