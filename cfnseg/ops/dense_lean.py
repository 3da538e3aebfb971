"""Cross-entropy, classes and scores from coarse logits, a strip of cells at a time, on any device.

Pixels between the centres of the same four cells blend the same four logits. So logits are padded
by their border and laid out as (C, cells), cells ordered by image, row, column. The pixels of a
strip of neighbouring cells are then (s * s, C, cells): two lerps between shifted slices; no gather.
The first axis is the pixel's place between the four centres, column first. Pixels that belong to
padding alone lie outside the image.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from cfnseg.ops.dense_reference import class_dtype, fold_border, stride_of, sum_dtype

STRIP = 1 << 19  # values of a strip: 2 MiB of float32, whatever the image's size and C
DEVICE_STRIP = 1 << 24  # 64 MiB off the CPU: there a call costs more than a cache saves


class Cells:
    """Logits (N, C, h, w) for images of ``size``, in float32 or float64."""

    def __init__(self, logits: Tensor, size: tuple[int, int]) -> None:
        self.size, self.stride = size, stride_of(logits, size)
        values = logits.transpose(0, 1).to(sum_dtype(logits))
        padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
        self.shape, self.row = padded.shape, padded.shape[3]
        self.values = padded.flatten(1)
        k = torch.arange(self.stride, device=logits.device, dtype=values.dtype)
        self.t = (k + 0.5) / self.stride if self.stride > 1 else k
        self.taps = torch.stack([1 - self.t, self.t])
        self.edge = self.stride - self.stride // 2  # pixels from the padding to the image

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
        across = self.t[:, None, None, None]
        return torch.lerp(lines[..., :-1], lines[..., 1:], across).flatten(0, 1)

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
        """A gradient of ``values``, overwritten, as the (N, C, h, w) logits' gradient."""
        return fold_border(grad.view(self.shape)).transpose(0, 1)

    def arrange(self, image: Tensor, outside: float) -> Tensor:
        """(N, H, W) values of pixels as (s * s, cells), ``outside`` where there is no pixel."""
        _, images, h, w = self.shape
        s, low = self.stride, self.edge
        right, bottom = s * w - self.size[1] - low, s * h - self.size[0] - low
        image = F.pad(image, (low, right, low, bottom), value=outside)
        return image.view(images, h, s, w, s).permute(4, 2, 0, 1, 3).reshape(s * s, -1)

    def picture(self, pixels: Tensor) -> Tensor:
        """(s * s, cells) values of pixels as the (N, H, W) image."""
        _, images, h, w = self.shape
        s, low = self.stride, self.edge
        image = pixels.view(s, s, images, h, w).permute(2, 3, 1, 4, 0)
        image = image.reshape(images, h * s, w * s)
        return image[:, low : low + self.size[0], low : low + self.size[1]].contiguous()

    def blank(self, kind: torch.dtype) -> Tensor:
        """(s * s, cells) zeros."""
        return self.values.new_zeros(self.stride**2, self.values.shape[1], dtype=kind)


def sums(
    logits: Tensor,
    target: Tensor,
    ignore_index: int,
    weight: Tensor | None,
    smoothing: float,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sum of the loss over pixels and summed weight, 0-d; if ``wanted``, the sum's gradient."""
    cells = Cells(logits, tuple(target.shape[1:]))
    grad = torch.zeros_like(cells.values) if wanted else None
    total, amount = torch.zeros(2, dtype=torch.float64, device=logits.device)
    for strip, part in _losses(cells, target, ignore_index, weight, smoothing):
        total += part.loss.sum(dtype=torch.float64)
        amount += part.weight.sum(dtype=torch.float64)
        if wanted:
            cells.fold(grad, strip, part.gradient(None))
    kind = cells.values.dtype
    return total.to(kind), amount.to(kind), cells.unpadded(grad) if wanted else None


def each(
    logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None, smoothing: float
) -> Tensor:
    """The loss of every pixel, (N, H, W)."""
    cells = Cells(logits, tuple(target.shape[1:]))
    result = cells.blank(cells.values.dtype)
    for strip, part in _losses(cells, target, ignore_index, weight, smoothing):
        result[:, strip] = part.loss
    return cells.picture(result)


def each_backward(
    grad: Tensor,
    logits: Tensor,
    target: Tensor,
    ignore_index: int,
    weight: Tensor | None,
    smoothing: float,
) -> Tensor:
    """The logits' gradient from the gradient of every pixel's loss: the strips again."""
    cells = Cells(logits, tuple(grad.shape[1:]))
    factor, result = cells.arrange(grad, 0), torch.zeros_like(cells.values)
    for strip, part in _losses(cells, target, ignore_index, weight, smoothing):
        cells.fold(result, strip, part.gradient(factor[:, strip]))
    return cells.unpadded(result)


def _losses(
    cells: Cells, target: Tensor, ignore: int, weight: Tensor | None, smoothing: float
) -> Iterator[tuple[slice, _Loss]]:
    """The loss of each strip."""
    limits = torch.iinfo(target.dtype)
    if not limits.min <= ignore <= limits.max:
        target = target.long()
    target = cells.arrange(target, ignore)
    w = cells.values.new_ones(len(cells.values)) if weight is None else weight.to(cells.values)
    for strip in cells.strips():
        yield strip, _Loss(cells.upsampled(strip), target[:, strip], ignore, w, smoothing)


class _Loss:
    """Loss and gradient of a strip's pixels, (s * s, cells).

    With class weights w, smoothing e and target t:
    loss = (1 - e) w_t (lse - z_t) + e / C sum_c w_c (lse - z_c).

    Args:
        logits: (s * s, C, cells); overwritten.
        target: (s * s, cells) train ids.
        w: (C,) class weights.
    """

    def __init__(
        self, logits: Tensor, target: Tensor, ignore: int, w: Tensor, smoothing: float
    ) -> None:
        classes = logits.shape[1]
        counted = target != ignore
        self.target, bad = checked(target, counted, classes)
        self.weight = w[self.target] * counted
        self.soft = smoothing / classes * w if smoothing else None
        self.hard = (1 - smoothing) * self.weight
        logits -= logits.amax(1, keepdim=True)  # none is above 0 now, so exp cannot overflow
        true = logits.gather(1, self.target[:, None])[:, 0]
        others = torch.matmul(self.soft, logits) if smoothing else 0
        self.exp = logits.exp_()
        self.sum = self.exp.sum(1)
        log = self.sum.log()
        self.loss = self.hard * (log - true)
        if smoothing:
            self.counted = counted.to(logits.dtype)
            self.loss += self.counted * (self.soft.sum() * log - others)
        if bad is not None:
            self.loss.masked_fill_(bad, float("nan"))

    def gradient(self, factor: Tensor | None) -> Tensor:
        """(s * s, C, cells) gradient of the sum of factor x loss; may be called once."""
        hard = self.hard if factor is None else self.hard * factor
        share = hard
        if self.soft is not None:
            soft = self.counted if factor is None else self.counted * factor
            share = hard + soft * self.soft.sum()
        grad = self.exp.mul_((share / self.sum)[:, None])
        grad.scatter_add_(1, self.target[:, None], -hard[:, None])
        if self.soft is not None:
            grad.addcmul_(soft[:, None], self.soft[:, None], value=-1)
        return grad


def checked(target: Tensor, counted: Tensor, classes: int) -> tuple[Tensor, Tensor | None]:
    """int64 ids with 0 where nothing is counted, and where counted ids are no class.

    On a CPU an id that is no class raises ValueError, and the second result is None. On other
    devices a look would wait for the device, and an index out of range would kill its context:
    such a pixel's loss becomes nan.
    """
    target = torch.where(counted, target, 0).long()
    bad = (target < 0) | (target >= classes)
    if not _may_look(target.device):
        return torch.where(bad, 0, target), bad
    if bad.any():
        wrong = int(target[bad][0])
        raise ValueError(f"target: expected ids 0 to {classes - 1} or ignore_index, got {wrong}")
    return target, None


def _may_look(device: torch.device) -> bool:
    return device.type == "cpu"


def argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """See `cfnseg.ops.dense_argmax`."""
    cells = Cells(logits, size)
    result = cells.blank(class_dtype(logits))
    for strip in cells.strips():
        result[:, strip] = _first_largest(cells.upsampled(strip))[0]
    return cells.picture(result)


def scores(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """See `cfnseg.ops.dense_scores`."""
    cells = Cells(logits, size)
    result, chances = cells.blank(class_dtype(logits)), cells.blank(torch.float32)
    for strip in cells.strips():
        values = cells.upsampled(strip)
        result[:, strip], top = _first_largest(values)
        chances[:, strip] = values.sub_(top).exp_().sum(1).reciprocal_()
    return cells.picture(result), cells.picture(chances)


def _first_largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Class (s * s, cells) and value (s * s, 1, cells) of the largest; the first of equals.

    On a CPU torch vectorises neither argmax nor max with indices over an inner axis. Max pooling
    it does, over cells as channels: one window holds the classes of a pixel.
    """
    if values.device.type != "cpu":  # a GPU's reduction is fast as it is
        top, classes = values.max(1, keepdim=True)
        return classes[:, 0], top
    windows = values.unsqueeze(2).permute(0, 3, 1, 2)  # (s * s, cells, C, 1), channels-last
    top, classes = F.max_pool2d(windows, (values.shape[1], 1), return_indices=True)
    return classes[..., 0, 0], top[..., 0, 0].unsqueeze(1)
