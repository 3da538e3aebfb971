"""Cross-entropy, class maps, scores and confusion at the image's size, from coarser logits.

Upsampling is bilinear with pixel centres aligned (``align_corners=False``) by the integer stride,
then cropped. A cell covers exactly stride x stride pixels whatever the image's size, so an odd
size shifts nothing. Logits at the image's size, (N, C, H, W), never exist: the work goes strip by
strip.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cfnseg.ops import dense_ops, dense_reference
from cfnseg.ops.dispatch import traced


def dense_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of the upsampled logits, as `torch.nn.functional.cross_entropy` defines it.

    Backward keeps the logits' gradient, (N, C, h, w), which forward computes with the loss. For
    "none" it keeps the logits alone and computes the pixels again. Differentiable once.

    Args:
        logits: (N, C, h, w), float; h, w = ceil(H / s), ceil(W / s) of the target's H, W for a
            stride s of 1, 2, 4, ... 32.
        target: (N, H, W) train ids, any integer dtype; ``ignore_index`` pixels count for nothing.
        ignore_index: the id left out.
        weight: (C,) class weights; the mean is then the weighted mean, as in torch.
        label_smoothing: share of the target spread over all classes, 0..1.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or (N, H, W) for "none". The mean is 0 with a zero gradient if every pixel is
        ignored. float32, also under autocast; float64 of float64.

    Raises:
        ValueError: shapes or dtypes that do not fit, by the argument's name; on a CPU also ids
            outside 0..C-1. On CUDA such a pixel's loss is nan: a check would wait for the device,
            and an assertion on the device would end its use for the whole process.

    Example:
        >>> import torch
        >>> from cfnseg.ops import dense_cross_entropy
        >>> logits = torch.zeros(1, 2, 4, 4)  # two equal classes, stride 2
        >>> target = torch.zeros(1, 8, 7, dtype=torch.uint8)
        >>> round(dense_cross_entropy(logits, target).item(), 4)  # ln 2
        0.6931
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected mean, sum or none, got {reduction!r}")
    if reduction == "none":
        _check_loss(logits, target, weight, label_smoothing)
        each = (dense_reference if traced() else dense_ops).each
        return each(logits, target, ignore_index, weight, label_smoothing)
    total, amount = dense_cross_entropy_sums(
        logits, target, ignore_index=ignore_index, weight=weight, label_smoothing=label_smoothing
    )
    if reduction == "sum":
        return total
    return total / amount.clamp_min(torch.finfo(amount.dtype).tiny)


def dense_cross_entropy_sums(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The sum of the pixels' losses, and the weight it counted; their quotient is the mean.

    So the mean over several batches or processes needs no second pass over the targets.
    Arguments and errors as in `dense_cross_entropy`.

    Returns:
        The loss summed over pixels, and the sum of ``weight[target]`` over counted pixels (their
        number without a weight), not differentiable. Both 0-d float32, or float64 of float64.
    """
    _check_loss(logits, target, weight, label_smoothing)
    if traced():
        return dense_reference.sums(logits, target, ignore_index, weight, label_smoothing)
    wanted = torch.is_grad_enabled() and logits.requires_grad
    return dense_ops.sums(logits, target, ignore_index, weight, label_smoothing, wanted)[:2]


@torch.no_grad()
def dense_argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The class of every pixel.

    Args:
        logits: (N, C, h, w), float.
        size: (H, W) of the image; h, w = ceil(H / s), ceil(W / s) for a stride s of 1, 2, ... 32.

    Returns:
        (N, H, W) uint8 (int64 if C > 256): argmax over classes of the upsampled logits, the first
        of equals.

    Raises:
        ValueError: logits of another shape or dtype.

    Example:
        >>> import torch
        >>> from cfnseg.ops import dense_argmax
        >>> logits = torch.tensor([[[[2.0, -2.0]], [[0.0, 0.0]]]])  # (1, 2, 1, 2): class 0, class 1
        >>> dense_argmax(logits, (1, 8)).tolist()
        [[[0, 0, 0, 0, 1, 1, 1, 1]]]
    """
    _check_logits(logits)
    return (dense_reference if traced() else dense_ops).argmax(logits, tuple(size))


@torch.no_grad()
def dense_scores(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The class of every pixel as `dense_argmax`, and its softmax probability, (N, H, W) float32.

    Example:
        >>> import torch
        >>> from cfnseg.ops import dense_scores
        >>> classes, chances = dense_scores(torch.zeros(1, 4, 2, 2), (8, 8))
        >>> classes.dtype, chances.shape, chances.max().item()
        (torch.uint8, torch.Size([1, 8, 8]), 0.25)
    """
    _check_logits(logits)
    return (dense_reference if traced() else dense_ops).scores(logits, tuple(size))


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
        ValueError: shapes or dtypes that do not fit, by the argument's name; on a CPU also ids
            outside 0..C-1. On CUDA such an id makes every entry -1: a check would wait for the
            device.
    """
    _check_pair(logits, target)
    return dense_ops.confusion(logits, target, ignore_index)


def _check_logits(logits: Tensor) -> None:
    if logits.ndim != 4 or not logits.is_floating_point() or 0 in logits.shape:
        shape = tuple(logits.shape)
        raise ValueError(f"logits: expected float (N, C, h, w), got {logits.dtype} {shape}")


def _check_pair(logits: Tensor, target: Tensor) -> None:
    _check_logits(logits)
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise ValueError(f"target: expected integer train ids, got {target.dtype}")
    if target.ndim != 3 or target.shape[0] != logits.shape[0]:
        raise ValueError(f"target: expected ({logits.shape[0]}, H, W), got {tuple(target.shape)}")
    if target.device != logits.device:
        raise ValueError(f"target: expected on {logits.device} as the logits, got {target.device}")


def _check_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None, label_smoothing: float
) -> None:
    _check_pair(logits, target)
    if weight is not None and weight.shape != logits.shape[1:2]:
        raise ValueError(f"weight: expected ({logits.shape[1]},), got {tuple(weight.shape)}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing: expected 0 to 1, got {label_smoothing}")
