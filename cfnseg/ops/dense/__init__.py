"""Cross-entropy, class maps, scores and confusion at the image's size from logits at a coarser stride.

Upsampling is bilinear with pixel centres aligned (``align_corners=False``) by the integer stride, then cropped: a cell
covers exactly its stride x stride pixels whatever the image's size, so an odd size shifts nothing. Logits at the image's size,
(N, C, H, W), never exist: pixels are made, used and forgotten a strip at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cfnseg.ops.dense import lean, reference
from cfnseg.ops.dense.reference import stride_of, upsample_logits
from cfnseg.ops.dispatch import version_for

__all__ = ["dense_argmax", "dense_confusion", "dense_cross_entropy", "dense_scores", "stride_of", "upsample_logits"]


CHUNK = 1 << 18  # pixels that are counted at once


def _version(logits: Tensor):
    """The module with `cross_entropy`, `argmax`, `scores` for these logits."""
    name = version_for(logits)
    if name == "triton":
        from cfnseg.ops.dense import kernels

        return kernels
    return lean if name == "lean" else reference


@torch.compiler.disable  # a compiler would unroll the strips
def dense_cross_entropy(logits: Tensor, target: Tensor, *, ignore_index: int = 255, weight: Tensor | None = None,
                        label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
    """Cross-entropy at the target's resolution, as `torch.nn.functional.cross_entropy` defines it on upsampled logits.

    Kept for backward: the gradient of the logits, (N, C, h, w), which is computed together with the loss; for "none" the
    logits alone, and backward computes the pixels again. Differentiable once.

    Args:
        logits: (N, C, h, w), float; h, w = ceil(H / s), ceil(W / s) of the target's H, W for a stride s of 1, 2, 4, ... 32.
        target: (N, H, W) train ids, any integer dtype; ``ignore_index`` pixels count for nothing.
        ignore_index: the id left out.
        weight: (C,) class weights; the mean is then the weighted mean, as torch has it.
        label_smoothing: share of the target spread over all classes, 0..1.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, for "mean" 0 with a zero gradient if every pixel is ignored; or (N, H, W) for "none". float32, also under
        autocast; float64 of float64.

    Raises:
        ValueError: shapes or dtypes that do not fit, by the argument's name; on a CPU also ids outside 0..C-1. On CUDA such
            a pixel's loss is nan in place: checking would stop the program until the device has caught up, and an assertion
            on the device would end its use for the whole process.
    """
    _check_pair(logits, target)
    if weight is not None and weight.shape != logits.shape[1:2]:
        raise ValueError(f"weight: expected ({logits.shape[1]},), got {tuple(weight.shape)}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing: expected 0 to 1, got {label_smoothing}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected mean, sum or none, got {reduction!r}")
    with torch.autocast(logits.device.type, enabled=False):
        return _version(logits).cross_entropy(logits, target, ignore_index, weight, label_smoothing, reduction)


@torch.compiler.disable
@torch.no_grad()
def dense_argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The class of every pixel.

    Args:
        logits: (N, C, h, w), float.
        size: (H, W) of the image; h, w = ceil(H / s), ceil(W / s) for a stride s of 1, 2, 4, ... 32.

    Returns:
        (N, H, W) uint8 (int64 if C > 256): argmax over classes of the upsampled logits, the first of equals.

    Raises:
        ValueError: logits of another shape or dtype.
    """
    _check_logits(logits)
    return _version(logits).argmax(logits, tuple(size)).to(_kind(logits))


@torch.compiler.disable
@torch.no_grad()
def dense_scores(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The class of every pixel, as `dense_argmax`, and its softmax probability, (N, H, W) float32."""
    _check_logits(logits)
    classes, chances = _version(logits).scores(logits, tuple(size))
    return classes.to(_kind(logits)), chances.float()


@torch.compiler.disable
@torch.no_grad()
def dense_confusion(logits: Tensor, target: Tensor, ignore_index: int = 255) -> Tensor:
    """Pixels by true and predicted class.

    Args:
        logits: (N, C, h, w), float.
        target: (N, H, W) train ids, any integer dtype.
        ignore_index: the id whose pixels are left out.

    Returns:
        (C, C) int64, rows = truth.

    Raises:
        ValueError: shapes or dtypes that do not fit, or ids that are no class, by the argument's name.
    """
    _check_pair(logits, target)
    classes, result = logits.shape[1], torch.zeros(logits.shape[1] ** 2, dtype=torch.int64, device=logits.device)
    pairs = zip(target.flatten().split(CHUNK), dense_argmax(logits, tuple(target.shape[1:])).flatten().split(CHUNK))
    for truth, found in pairs:
        counted = truth != ignore_index
        truth, found = truth[counted].long(), found[counted]
        if ((truth < 0) | (truth >= classes)).any():
            raise ValueError(f"target: expected ids 0 to {classes - 1} or ignore_index {ignore_index}")
        result += torch.bincount(truth * classes + found, minlength=len(result))
    return result.view(classes, classes)


def _kind(logits: Tensor) -> torch.dtype:
    return torch.uint8 if logits.shape[1] <= 256 else torch.int64


def _check_logits(logits: Tensor) -> None:
    if logits.ndim != 4 or not logits.is_floating_point() or 0 in logits.shape:
        raise ValueError(f"logits: expected float (N, C, h, w), got {logits.dtype} {tuple(logits.shape)}")


def _check_pair(logits: Tensor, target: Tensor) -> None:
    _check_logits(logits)
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise ValueError(f"target: expected integer train ids, got {target.dtype}")
    if target.ndim != 3 or len(target) != len(logits):
        raise ValueError(f"target: expected ({len(logits)}, H, W), got {tuple(target.shape)}")
    if target.device != logits.device:
        raise ValueError(f"target: expected on {logits.device} as the logits, got {target.device}")
