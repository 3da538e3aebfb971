"""Strips of upsampled logits that fit the cache, and the adjoint of upsampling.

Pixels between the centres of the same four cells are blends of the same four logits. So logits are padded by their border and
laid out as (C, cells), cells in the order of images, rows, columns; then the pixels of a strip of neighbouring cells are
(s * s, C, cells): two blends of slices that are shifted by one cell and by one row, no index anywhere. The first axis is the
pixel's place between the four centres, column first. Pixels that belong to padding alone are outside the image.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from cfnseg.ops.dense.reference import stride_of

STRIP = 1 << 19  # values of a strip, 2 MiB of float32, whatever the image's size and the number of classes
DEVICE_STRIP = 1 << 24  # on other devices than a CPU, 64 MiB: there a call costs more than a cache saves


class Cells:
    """Logits (N, C, h, w) of images of ``size``, in float32 or float64."""

    def __init__(self, logits: Tensor, size: tuple[int, int]) -> None:
        self.size, self.stride = size, stride_of(logits, size)
        values = logits.transpose(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
        padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
        self.shape, self.row = padded.shape, padded.shape[3]
        self.values = padded.flatten(1)
        k = torch.arange(self.stride, device=logits.device, dtype=values.dtype)
        self.t = (k + 0.5) / self.stride if self.stride > 1 else k
        self.taps = torch.stack([1 - self.t, self.t])
        self.edge = self.stride - self.stride // 2  # pixels from the padding's first quad to the image

    def strips(self) -> Iterator[slice]:
        """Ranges of cells."""
        values = STRIP if self.values.device.type == "cpu" else DEVICE_STRIP
        step = max(1, values // (self.stride**2 * len(self.values)))
        last = self.values.shape[1] - self.row - 1
        for start in range(0, last, step):
            yield slice(start, min(start + step, last))

    def upsampled(self, cells: slice) -> Tensor:
        """(s * s, C, cells)."""
        above = self.values[:, cells.start : cells.stop + 1]
        below = self.values[:, cells.start + self.row : cells.stop + self.row + 1]
        lines = torch.lerp(above, below, self.t[:, None, None])
        return torch.lerp(lines[..., :-1], lines[..., 1:], self.t[:, None, None, None]).flatten(0, 1)

    def fold(self, grad: Tensor, cells: slice, part: Tensor) -> None:
        """Add the adjoint of `upsampled` at ``part`` to a gradient of ``values``."""
        s, length = self.stride, cells.stop - cells.start
        left, right = torch.mm(self.taps, part.view(s, -1)).view(2, s, -1, length)
        lines = F.pad(left, (0, 1))
        lines[..., 1:] += right
        above, below = torch.mm(self.taps, lines.view(s, -1)).view(2, -1, length + 1)
        grad[:, cells.start : cells.stop + 1] += above
        grad[:, cells.start + self.row : cells.stop + self.row + 1] += below

    def unpadded(self, grad: Tensor) -> Tensor:
        """A gradient of ``values`` as that of the logits, (N, C, h, w)."""
        grad = grad.view(self.shape)
        grad[:, :, 1] += grad[:, :, 0]
        grad[:, :, -2] += grad[:, :, -1]
        grad[..., 1] += grad[..., 0]
        grad[..., -2] += grad[..., -1]
        return grad[:, :, 1:-1, 1:-1].transpose(0, 1)

    def arrange(self, image: Tensor, outside: float) -> Tensor:
        """(N, H, W) values of pixels as (s * s, cells), ``outside`` where there is no pixel."""
        _, images, h, w = self.shape
        s, low = self.stride, self.edge
        image = F.pad(image, (low, s * w - self.size[1] - low, low, s * h - self.size[0] - low), value=outside)
        return image.view(images, h, s, w, s).permute(4, 2, 0, 1, 3).reshape(s * s, -1)

    def picture(self, pixels: Tensor) -> Tensor:
        """(s * s, cells) values of pixels as the (N, H, W) image."""
        _, images, h, w = self.shape
        s, low = self.stride, self.edge
        image = pixels.view(s, s, images, h, w).permute(2, 3, 1, 4, 0).reshape(images, h * s, w * s)
        return image[:, low : low + self.size[0], low : low + self.size[1]].contiguous()

    def blank(self, kind: torch.dtype) -> Tensor:
        """(s * s, cells) zeros."""
        return torch.zeros(self.stride**2, self.values.shape[1], dtype=kind, device=self.values.device)
