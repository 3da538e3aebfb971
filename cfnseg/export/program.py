"""The exported function: a photograph in, its mask out, everything between inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.errors import UserError
from cfnseg.inference.augment import cell_of, scaled, whole_levels
from cfnseg.models.folding import folded
from cfnseg.models.segmenter import as_segmenter, bands_of, blank_images
from cfnseg.ops import stride_of
from cfnseg.ops.lc_reference import read_grid, weights_of

BLOCK = 32  # the network sees images whose sides are multiples of it
MOST = 4096  # blocks along a side, which an exporter wants to know


class Program(nn.Module):
    """One plain pass over a whole image, in operations that every runtime has.

    It computes what `cfnseg.inference.predictor.Predictor` computes without windows and views. A
    side under 33 pixels is padded further than there, to two blocks.

    Args:
        model: a segmentation model on the CPU; a folded copy of it is used.
        half: compute the network in float16; what follows its logits is in float32.
    """

    def __init__(self, model: nn.Module, half: bool = False) -> None:
        super().__init__()
        model = as_segmenter(folded(model))
        self.scale = float(model.test_scale)
        self.kind = torch.float16 if half else torch.float32
        self.bands = bands_of(model)
        if half and self.bands:
            raise UserError(f"--half holds no values of {self.bands}; leave it out", code=2)
        self.model = model.to(self.kind).eval()
        with torch.no_grad():
            logits = self.model(blank_images(model, (1, 64, 64)).to(self.kind)).pixel
        self.stride = stride_of(logits, (64, 64))
        self.cell = cell_of(self.stride, self.scale)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Segment.

        Args:
            image: (N, H, W, 3) uint8 RGB, or (N, H, W, C) of the model's bands.

        Returns:
            mask (N, H, W) uint8 train ids; confidence (N, H, W) float32, the softmax probability of
            each pixel's class; logits (N, C, ceil(H / cell), ceil(W / cell)) float32.
        """
        size = image.shape[1:3]
        if self.bands:  # few operations take uint16
            images = image.float().permute(0, 3, 1, 2)
        else:
            images = image.permute(0, 3, 1, 2).float()
        seen: Sequence[int] = size
        if self.scale != 1:
            seen = [scaled(n, self.scale) for n in size]
            resized = F.interpolate(
                images, seen, mode="bilinear", align_corners=False, antialias=self.scale < 1
            )
            whole = self.bands is None or self.bands.type == "uint8"
            images = whole_levels(resized) if whole else resized
        padded, region = self._padded(images if self.bands else images / 255)
        cells = self.model(padded.to(self.kind), region.to(self.kind)).pixel.float()
        cells = self._at_cells(cells, seen, size)
        full = F.interpolate(cells, scale_factor=self.cell, mode="bilinear", align_corners=False)
        full = _first(full, size)
        top, classes = full.max(1, keepdim=True)
        return classes[:, 0].to(torch.uint8), 1 / (full - top).exp().sum(1), cells

    def _padded(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The images with sides of whole blocks, filled with the mean colour, and their place
        (1, 4) as `cfnseg.models.cfn.CFN.forward` takes it."""
        mean = getattr(self.model.encoder, "mean", images.new_zeros(1, 1, 1, 1))
        places = []
        for axis, side in zip((2, 3), images.shape[-2:]):
            count = _blocks(side) * BLOCK
            at = torch.arange(count, device=images.device)
            inside = (at < side).view((1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1))
            images = images.index_select(axis, at.clamp_max(side - 1))
            images = torch.where(inside, images, mean.float())
            places.append(count / (at.new_zeros(()) + side))
        zero = torch.zeros_like(places[0])
        return images, torch.stack([zero, zero, places[1], places[0]])[None]

    def _at_cells(self, cells: Tensor, seen: Sequence[int], size: Sequence[int]) -> Tensor:
        """The logits of the image, of the logits of the padded image that the network saw."""
        covered = [(n + self.stride - 1) // self.stride for n in seen]
        if self.scale == 1:
            return _first(cells, covered)
        matrices = []
        for own, other, knots, last in zip(size, seen, cells.shape[-2:], covered):
            count = (own + self.cell - 1) // self.cell
            centres = (torch.arange(count, device=cells.device) + 0.5) * self.cell * other
            at = centres / (own * self.stride) - 0.5
            matrices.append(weights_of(at.clamp(0, last - 1), knots))
        read = read_grid(cells.flatten(0, 1), *matrices)
        return read.unflatten(0, cells.shape[:2])


def _blocks(side: int) -> int:
    """Blocks that a side needs, two or more.

    A traced side becomes a number of its own: with what derives from the image's side, an exporter
    takes minutes to simplify the size of each map.
    """
    blocks = (side + BLOCK - 1) // BLOCK
    if isinstance(blocks, int):
        return max(2, blocks)
    count = torch.full((), blocks, dtype=torch.int64).clamp_min(2).item()
    torch._check(count >= 2)
    torch._check(count <= MOST)
    return count


def _first(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(N, C, h, w) of ``size``, the first rows and columns of ``maps``; no slice, whose bounds an
    exporter would have to compare."""
    for axis, n in zip((2, 3), size):
        maps = maps.index_select(axis, torch.arange(n, device=maps.device))
    return maps
