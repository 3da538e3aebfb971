"""Cross-entropy, classes and scores from coarse logits a strip of cells at a time, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from cfnseg.ops.dense.cells import Cells


def sums(logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None, smoothing: float,
         wanted: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sum of the loss over pixels and the pixels' summed weight, 0-d; where ``wanted`` the sum's gradient in the same walk."""
    loss = _Loss(target, ignore_index, weight, smoothing)
    cells = Cells(logits, tuple(target.shape[1:]))
    grad = torch.zeros_like(cells.values) if wanted else None
    target = loss.arranged(cells)
    total, amount = torch.zeros(2, dtype=torch.float64, device=logits.device)
    for strip in cells.strips():
        part = _Strip(cells.upsampled(strip), target[:, strip], loss)
        total += part.loss.sum(dtype=torch.float64)
        amount += part.weight.sum(dtype=torch.float64)
        if wanted:
            cells.fold(grad, strip, part.gradient(None))
    kind = cells.values.dtype
    return total.to(kind), amount.to(kind), cells.unpadded(grad) if wanted else None


def each(logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None, smoothing: float) -> Tensor:
    """The loss of every pixel, (N, H, W)."""
    loss = _Loss(target, ignore_index, weight, smoothing)
    cells = Cells(logits, tuple(target.shape[1:]))
    target, result = loss.arranged(cells), cells.blank(cells.values.dtype)
    for strip in cells.strips():
        result[:, strip] = _Strip(cells.upsampled(strip), target[:, strip], loss).loss
    return cells.picture(result)


def each_backward(grad: Tensor, logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None, smoothing: float) -> Tensor:
    """The logits' gradient from that of every pixel's loss: the strips again."""
    loss = _Loss(target, ignore_index, weight, smoothing)
    cells = Cells(logits, tuple(grad.shape[1:]))
    target, factor, result = loss.arranged(cells), cells.arrange(grad, 0), torch.zeros_like(cells.values)
    for strip in cells.strips():
        part = _Strip(cells.upsampled(strip), target[:, strip], loss)
        cells.fold(result, strip, part.gradient(factor[:, strip]))
    return cells.unpadded(result)


class _Loss:
    """What the loss of a pixel depends on beside its logits."""

    def __init__(self, target: Tensor, ignore_index: int, weight: Tensor | None, smoothing: float) -> None:
        limits = torch.iinfo(target.dtype)
        self.target = target if limits.min <= ignore_index <= limits.max else target.long()
        self.ignore, self.weight, self.smoothing = ignore_index, weight, smoothing

    def arranged(self, cells: Cells) -> Tensor:
        """The (s * s, cells) target."""
        return cells.arrange(self.target, self.ignore)


class _Strip:
    """Loss and gradient of the pixels of a strip, (s * s, cells), from their logits (s * s, C, cells), which are overwritten.

    With w the class weights, e the smoothing and t the target: loss = (1 - e) w_t (lse - z_t) + e / C sum_c w_c (lse - z_c).
    """

    def __init__(self, logits: Tensor, target: Tensor, loss: _Loss) -> None:
        classes = logits.shape[1]
        counted = target != loss.ignore
        self.target, bad = checked(target, counted, classes)
        w = torch.ones(classes, dtype=logits.dtype, device=logits.device) if loss.weight is None else loss.weight.to(logits)
        self.weight = w[self.target] * counted
        self.soft = loss.smoothing / classes * w if loss.smoothing else None
        self.hard = (1 - loss.smoothing) * self.weight
        logits -= logits.amax(1, keepdim=True)  # none is above 0 now, so exp cannot overflow
        true = logits.gather(1, self.target[:, None])[:, 0]
        others = torch.matmul(self.soft, logits) if loss.smoothing else 0
        self.exp = logits.exp_()
        self.sum = self.exp.sum(1)
        log = self.sum.log()
        self.loss = self.hard * (log - true)
        if loss.smoothing:
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
    """int64 ids with 0 for what is not counted, and where counted ids are no class.

    On a CPU an id that is no class raises ValueError and None is returned for it. On other devices looking would make the
    program wait for the device, and an index out of range would kill its context: such a pixel's loss becomes nan.
    """
    target = torch.where(counted, target, 0).long()
    bad = (target < 0) | (target >= classes)
    if not _may_look(target.device):
        return torch.where(bad, 0, target), bad
    if bad.any():
        raise ValueError(f"target: expected ids 0 to {classes - 1} or ignore_index, got {int(target[bad][0])}")
    return target, None


def _may_look(device: torch.device) -> bool:
    return device.type == "cpu"


def argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """See `cfnseg.ops.dense_argmax`."""
    cells = Cells(logits, size)
    result = cells.blank(torch.uint8 if logits.shape[1] <= 256 else torch.int64)
    for strip in cells.strips():
        result[:, strip] = _first_largest(cells.upsampled(strip))[0]
    return cells.picture(result)


def scores(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """See `cfnseg.ops.dense_scores`."""
    cells = Cells(logits, size)
    result = cells.blank(torch.uint8 if logits.shape[1] <= 256 else torch.int64)
    chances = cells.blank(torch.float32)
    for strip in cells.strips():
        values = cells.upsampled(strip)
        result[:, strip], top = _first_largest(values)
        chances[:, strip] = values.sub_(top).exp_().sum(1).reciprocal_()
    return cells.picture(result), cells.picture(chances)


def _first_largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Class (s * s, cells) and value (s * s, 1, cells) of the largest; the first of equals.

    torch's argmax over an inner axis is not vectorised. Here what is below the largest becomes 255, the rest its class, and the
    smallest is taken: bytes, ten times faster.
    """
    top = values.amax(1, keepdim=True)
    if values.shape[1] > 256:
        return values.argmax(1), top
    codes = (values < top).view(torch.uint8).mul_(255)
    codes |= torch.arange(values.shape[1], dtype=torch.uint8, device=values.device)[:, None]
    return codes.amin(1), top
