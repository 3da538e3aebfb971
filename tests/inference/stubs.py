"""Networks without context, whose right answer is known at every cell."""

import torch
from torch import nn

from cfnseg.models.segmenter import Network, Output


class Place(Network):
    """Logits: a cell's place (x, y) in the full image, 0..1, and its 4 x 4 pixels' mean colour."""

    def forward(self, images, region):
        h, w = images.shape[-2:]
        images = nn.functional.pad(images.float(), (0, -w % 4, 0, -h % 4), mode="replicate")
        x0, y0, x1, y1 = region[:, :, None, None].unbind(1)
        colour = nn.functional.avg_pool2d(images, 4).mean(1)
        u = x0 + (x1 - x0) * (torch.arange(colour.shape[2]) + 0.5) * 4 / w
        v = y0 + (y1 - y0) * (torch.arange(colour.shape[1])[:, None] + 0.5) * 4 / h
        pixel = torch.stack([u.expand_as(colour), v.expand_as(colour), colour], 1)
        bright = images.amax((1, 2, 3))[:, None]
        return Output(pixel, torch.cat([bright, 0 * bright, 0 * bright], 1))


class Constant(Network):
    """The same logits everywhere, at a stride."""

    def __init__(self, logits: tuple[float, ...], stride: int) -> None:
        super().__init__()
        self.logits, self.stride = torch.tensor(logits), stride

    def forward(self, images, region):
        n, _, h, w = images.shape
        return Output(
            self.logits[:, None, None].expand(n, -1, -(-h // self.stride), -(-w // self.stride)),
            self.logits.expand(n, -1),
        )
