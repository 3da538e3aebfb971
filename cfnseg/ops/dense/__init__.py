"""Cross-entropy, class maps, scores and confusion at the image's size from logits at a coarser stride.

Upsampling is bilinear with pixel centres aligned (``align_corners=False``) by the integer stride, then cropped: a cell
covers exactly its stride x stride pixels whatever the image's size, so an odd size shifts nothing. Logits at the image's size,
(N, C, H, W), never exist: pixels are made, used and forgotten a strip at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cfnseg.ops.dense import reference
from cfnseg.ops.dense.lean import checked
from cfnseg.ops.dense.reference import stride_of, upsample_logits
from cfnseg.ops.dispatch import run, traced

__all__ = ["dense_argmax", "dense_confusion", "dense_cross_entropy", "dense_cross_entropy_sums", "dense_scores", "stride_of",
           "upsample_logits"]


CHUNK = 1 << 18  # pixels that are counted at once


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
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected mean, sum or none, got {reduction!r}")
    if reduction == "none":
        _check_loss(logits, target, weight, label_smoothing)
        with torch.autocast(logits.device.type, enabled=False):
            return (reference.each if traced() else _each)(logits, target, ignore_index, weight, label_smoothing)
    total, amount = dense_cross_entropy_sums(logits, target, ignore_index=ignore_index, weight=weight, label_smoothing=label_smoothing)
    return total / amount.clamp_min(torch.finfo(amount.dtype).tiny) if reduction == "mean" else total


def dense_cross_entropy_sums(logits: Tensor, target: Tensor, *, ignore_index: int = 255, weight: Tensor | None = None,
                             label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """The sum of the pixels' losses and the weight that it counted; their quotient is the mean.

    So the mean over several batches or processes needs no second pass over the targets. Arguments and errors as
    `dense_cross_entropy`.

    Returns:
        The loss summed over pixels, and the sum over counted pixels of ``weight[target]`` (their number without a weight),
        which is not differentiable. Both 0-d float32, or float64 of float64.
    """
    _check_loss(logits, target, weight, label_smoothing)
    with torch.autocast(logits.device.type, enabled=False):
        if traced():
            return reference.sums(logits, target, ignore_index, weight, label_smoothing)
        wanted = torch.is_grad_enabled() and logits.requires_grad
        return _sums(logits, target, ignore_index, weight, label_smoothing, wanted)[:2]


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
    return reference.argmax(logits, tuple(size)).to(_kind(logits)) if traced() else _argmax(logits, size)


@torch.no_grad()
def dense_scores(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The class of every pixel, as `dense_argmax`, and its softmax probability, (N, H, W) float32."""
    _check_logits(logits)
    if not traced():
        return _scores(logits, size)
    classes, chances = reference.scores(logits, tuple(size))
    return classes.to(_kind(logits)), chances.float()


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
        ValueError: shapes or dtypes that do not fit, by the argument's name; on a CPU also ids that are no class. On
            CUDA such an id makes every entry -1: checking would wait for the device.
    """
    _check_pair(logits, target)
    return _confusion(logits, target, ignore_index)


def _kind(logits: Tensor) -> torch.dtype:
    return torch.uint8 if logits.shape[1] <= 256 else torch.int64


def _check_logits(logits: Tensor) -> None:
    if logits.ndim != 4 or not logits.is_floating_point() or 0 in logits.shape:
        raise ValueError(f"logits: expected float (N, C, h, w), got {logits.dtype} {tuple(logits.shape)}")


def _check_pair(logits: Tensor, target: Tensor) -> None:
    _check_logits(logits)
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise ValueError(f"target: expected integer train ids, got {target.dtype}")
    if target.ndim != 3 or target.shape[0] != logits.shape[0]:
        raise ValueError(f"target: expected ({logits.shape[0]}, H, W), got {tuple(target.shape)}")
    if target.device != logits.device:
        raise ValueError(f"target: expected on {logits.device} as the logits, got {target.device}")


def _check_loss(logits: Tensor, target: Tensor, weight: Tensor | None, label_smoothing: float) -> None:
    _check_pair(logits, target)
    if weight is not None and weight.shape != logits.shape[1:2]:
        raise ValueError(f"weight: expected ({logits.shape[1]},), got {tuple(weight.shape)}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing: expected 0 to 1, got {label_smoothing}")


# A compiler sees the operations whole: traced, the strips would be unrolled.
LOSS = "Tensor logits, Tensor target, int ignore_index, Tensor? weight, float smoothing"


def _operation(name: str, schema: str):
    return torch.library.custom_op(f"cfnseg::{name}", mutates_args=(), schema=schema)


@_operation("dense_cross_entropy_sums", f"({LOSS}, bool wanted) -> (Tensor, Tensor, Tensor)")
def _sums(logits, target, ignore_index, weight, smoothing, wanted):
    with torch.autocast(logits.device.type, enabled=False):
        total, amount, grad = run(__name__, "sums", "cross_entropy", logits, logits, target, ignore_index, weight, smoothing, wanted)
    # an operation's results may share no memory
    grad = grad.clone(memory_format=torch.contiguous_format) if wanted else total.new_empty(0)
    return total.clone(), amount.clone(), grad


@_sums.register_fake
def _(logits, target, ignore_index, weight, smoothing, wanted):
    kind = _sum_kind(logits)
    total, amount = logits.new_empty((), dtype=kind), logits.new_empty((), dtype=kind)
    return total, amount, logits.new_empty(logits.shape if wanted else 0, dtype=kind)


def _keep_sums(ctx, inputs, output):
    ctx.kind = inputs[0].dtype
    ctx.save_for_backward(output[2])  # computed with the loss, so one walk is enough
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


@once_differentiable
def _derive_sums(ctx, grad, *_):
    (stored,) = ctx.saved_tensors
    return None if grad is None else (stored * grad).to(ctx.kind), None, None, None, None, None


_sums.register_autograd(_derive_sums, setup_context=_keep_sums)


@_operation("dense_cross_entropy", f"({LOSS}) -> Tensor")
def _each(logits, target, ignore_index, weight, smoothing):
    with torch.autocast(logits.device.type, enabled=False):
        return run(__name__, "each", "cross_entropy", logits, logits, target, ignore_index, weight, smoothing)


@_each.register_fake
def _(logits, target, ignore_index, weight, smoothing):
    return logits.new_empty(target.shape, dtype=_sum_kind(logits))


@_operation("dense_cross_entropy_backward", f"(Tensor grad, {LOSS}) -> Tensor")
def _each_backward(grad, logits, target, ignore_index, weight, smoothing):
    with torch.autocast(logits.device.type, enabled=False):
        result = run(__name__, "each_backward", "cross_entropy", logits, grad, logits, target, ignore_index, weight, smoothing)
    return torch.empty_like(logits, memory_format=torch.contiguous_format).copy_(result)


@_each_backward.register_fake
def _(grad, logits, target, ignore_index, weight, smoothing):
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _keep_each(ctx, inputs, output):
    logits, target, ctx.ignore_index, weight, ctx.smoothing = inputs
    ctx.save_for_backward(logits, target, weight)


@once_differentiable
def _derive_each(ctx, grad):
    logits, target, weight = ctx.saved_tensors
    return _each_backward(grad, logits, target, ctx.ignore_index, weight, ctx.smoothing), None, None, None, None


_each.register_autograd(_derive_each, setup_context=_keep_each)


@_operation("dense_argmax", "(Tensor logits, SymInt[] size) -> Tensor")
def _argmax(logits, size):
    return run(__name__, "argmax", "classes", logits, logits, tuple(size)).to(_kind(logits))


@_argmax.register_fake
def _(logits, size):
    return logits.new_empty((logits.shape[0], *size), dtype=_kind(logits))


@_operation("dense_scores", "(Tensor logits, SymInt[] size) -> (Tensor, Tensor)")
def _scores(logits, size):
    classes, chances = run(__name__, "scores", "classes", logits, logits, tuple(size))
    return classes.to(_kind(logits)), chances.float()


@_scores.register_fake
def _(logits, size):
    shape = logits.shape[0], *size
    return logits.new_empty(shape, dtype=_kind(logits)), logits.new_empty(shape, dtype=torch.float32)


@_operation("dense_confusion", "(Tensor logits, Tensor target, int ignore_index) -> Tensor")
def _confusion(logits, target, ignore_index):
    return count(logits, target, ignore_index)


def count(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """`dense_confusion` of arguments that have been checked."""
    classes, device = logits.shape[1], logits.device
    result = torch.zeros(classes**2 + 1, dtype=torch.int64, device=device)  # the last is for what does not count
    bad = torch.zeros((), dtype=torch.bool, device=device)
    pairs = zip(target.flatten().split(CHUNK), dense_argmax(logits, tuple(target.shape[1:])).flatten().split(CHUNK))
    for truth, found in pairs:
        counted = truth != ignore_index
        truth, wrong = checked(truth, counted, classes)
        cells = torch.where(counted, truth * classes + found, classes**2)
        if wrong is None:
            result += torch.bincount(cells, minlength=len(result))
        else:  # bincount would wait for the device
            result.index_add_(0, cells, torch.ones_like(cells))
            bad |= wrong.any()
    return torch.where(bad, -1, result[:-1]).view(classes, classes)


@_confusion.register_fake
def _(logits, target, ignore_index):
    return logits.new_empty((logits.shape[1], logits.shape[1]), dtype=torch.int64)


def _sum_kind(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)
