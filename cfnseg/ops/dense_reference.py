"""Logits at the image's size, and what torch computes from them: the definitions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def stride_of(logits: Tensor, size: tuple[int, int]) -> int:
    """The finest stride s of 1, 2, 4, ... 32 with logits.shape[-2:] == ceil(size / s).

    Raises:
        ValueError: there is none; names both sizes.
    """
    h, w = logits.shape[-2:]
    for stride in (1, 2, 4, 8, 16, 32):
        if (-(-size[0] // stride), -(-size[1] // stride)) == (h, w):
            return stride
    raise ValueError(
        f"logits: {h} x {w} cells do not cover an image of {size[0]} x {size[1]} "
        "at a stride of 1, 2, 4, ... 32"
    )


def upsample_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, h, w) logits to (N, C, H, W): bilinear by the stride, then cropped."""
    stride = stride_of(logits, size)
    if stride > 1:
        logits = F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
    return logits[..., : size[0], : size[1]]


def class_dtype(logits: Tensor) -> torch.dtype:
    """The dtype of class maps: uint8 up to 256 classes, else int64."""
    return torch.uint8 if logits.shape[1] <= 256 else torch.int64


def sum_dtype(values: Tensor) -> torch.dtype:
    """The dtype of sums: float32 for 16-bit values, else the values' own."""
    return torch.promote_types(values.dtype, torch.float32)


def fold_border(grad: Tensor) -> Tensor:
    """The adjoint of padding by the border: (..., h + 2, w + 2), overwritten, to (..., h, w)."""
    grad[..., 1, :] += grad[..., 0, :]
    grad[..., -2, :] += grad[..., -1, :]
    grad[..., 1] += grad[..., 0]
    grad[..., -2] += grad[..., -1]
    return grad[..., 1:-1, 1:-1]


def _full(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return upsample_logits(logits.to(sum_dtype(logits)), size)


def sums(
    logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None, smoothing: float
) -> tuple[Tensor, Tensor]:
    """See `cfnseg.ops.dense_cross_entropy_sums`."""
    total = each(logits, target, ignore_index, weight, smoothing).sum()
    counted = target != ignore_index
    amount = counted
    if weight is not None:
        amount = weight.to(total)[torch.where(counted, target, 0).long()] * counted
    return total, amount.sum(dtype=torch.float64).to(total.dtype)


def each(
    logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None, smoothing: float
) -> Tensor:
    """See `cfnseg.ops.dense_cross_entropy` with reduction "none"."""
    full = _full(logits, tuple(target.shape[1:]))
    return F.cross_entropy(
        full,
        target.long(),
        None if weight is None else weight.to(full),
        ignore_index=ignore_index,
        reduction="none",
        label_smoothing=smoothing,
    )


def scores(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """See `cfnseg.ops.dense_scores`."""
    chances, classes = _full(logits, size).softmax(1).max(1)
    return classes.to(class_dtype(logits)), chances.float()


def argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """See `cfnseg.ops.dense_argmax`."""
    return _full(logits, size).argmax(1).to(class_dtype(logits))
