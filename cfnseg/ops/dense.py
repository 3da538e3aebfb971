"""Class maps, scores and cross-entropy at the image's size from logits at a coarser stride, a strip of rows at a time.

Upsampling is bilinear with pixel centres aligned (``align_corners=False``) by the integer stride, then cropped: a cell
covers exactly its stride x stride pixels whatever the image's size, so an odd size shifts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP = 64  # rows of cells handled at once: bounds memory at 64 x stride image rows


def stride_of(logits: Tensor, size: tuple[int, int]) -> int:
    """The stride s of 1, 2, 4, ... 32 with logits.shape[-2:] == ceil(size / s).

    Raises ValueError if there is none, naming both sizes.
    """
    h, w = logits.shape[-2:]
    for stride in (1, 2, 4, 8, 16, 32):
        if (-(-size[0] // stride), -(-size[1] // stride)) == (h, w):
            return stride
    raise ValueError(f"logits: {h} x {w} cells do not cover an image of {size[0]} x {size[1]} at a stride of 1, 2, 4, ... 32")


def upsample_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, h, w) logits to (N, C, H, W); the plain reference that the other functions must agree with."""
    stride = stride_of(logits, size)
    if stride > 1:
        logits = F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
    return logits[..., : size[0], : size[1]]


def _strips(logits: Tensor, size: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
    """Row ranges of the image with their (N, C, rows, W) upsampled logits, a strip at a time."""
    stride, h = stride_of(logits, size), logits.shape[2]
    for top in range(0, h, STRIP):
        bottom = min(top + STRIP, h)
        before, after = min(top, 1), min(h - bottom, 1)  # one cell of context makes the seam exact
        strip = logits[:, :, top - before : bottom + after]
        if stride > 1:
            strip = F.interpolate(strip, scale_factor=stride, mode="bilinear", align_corners=False)
        rows = slice(top * stride, min(bottom * stride, size[0]))
        yield rows, strip[:, :, before * stride :][:, :, : rows.stop - rows.start, : size[1]]


def dense_argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The class of every pixel.

    Args:
        logits: (N, C, h, w), float.
        size: (H, W) of the image; h, w = ceil(H / s), ceil(W / s) for a stride s of 1, 2, 4, ... 32.

    Returns:
        (N, H, W) uint8 (int64 if C > 256): argmax over classes of the upsampled logits, computed in strips.
    """
    kind = torch.uint8 if logits.shape[1] <= 256 else torch.int64
    result = torch.empty(len(logits), *size, dtype=kind, device=logits.device)
    for rows, strip in _strips(logits, size):
        result[:, rows] = strip.argmax(1).to(kind)
    return result


def dense_scores(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The class of every pixel and its softmax probability: (N, H, W) uint8 or int64, and (N, H, W) float32."""
    classes = dense_argmax(logits, size)
    top = torch.empty(classes.shape, device=logits.device)
    for rows, strip in _strips(logits, size):
        top[:, rows] = strip.float().softmax(1).amax(1)
    return classes, top


def dense_cross_entropy(logits: Tensor, target: Tensor, *, ignore_index: int = 255, weight: Tensor | None = None,
                        label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
    """Cross-entropy at the target's resolution. With gradients it stores (N, C, H, W); a sum without them goes by strips.

    Args:
        logits: (N, C, h, w), float; h, w = ceil(H / s), ceil(W / s) of the target's H, W.
        target: (N, H, W) train ids, any integer dtype; ``ignore_index`` pixels count for nothing.
        ignore_index: the id left out.
        weight: (C,) class weights; the mean is then the weighted mean, as torch has it.
        label_smoothing: share of the target spread over all classes.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, 0 (with a zero gradient) if every pixel is ignored; or (N, H, W) for "none".
    """
    if reduction == "sum" and not logits.requires_grad:  # evaluation: a strip at a time
        parts = [F.cross_entropy(strip.float(), target[:, rows].long(), weight, ignore_index=ignore_index, reduction="sum",
                                 label_smoothing=label_smoothing) for rows, strip in _strips(logits, tuple(target.shape[-2:]))]
        return torch.stack(parts).sum()
    full = upsample_logits(logits, tuple(target.shape[-2:])).float()
    target = target.long()
    if reduction == "mean" and not (target != ignore_index).any():
        return full.sum() * 0
    return F.cross_entropy(full, target, weight, ignore_index=ignore_index, reduction=reduction,
                           label_smoothing=label_smoothing)
