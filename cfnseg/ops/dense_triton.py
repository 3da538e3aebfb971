"""Cross-entropy, classes and scores from coarse logits, by the Triton kernels."""

from __future__ import annotations

from typing import cast

import torch
import triton
from torch import Tensor

from cfnseg.ops.dense_kernels import classes_kernel, loss_kernel
from cfnseg.ops.dense_reference import class_dtype, fold_border, stride_of
from cfnseg.ops.dispatch import launch

TILE = 1024  # pixels of a program


def _tiles(logits: Tensor, size: tuple[int, int]) -> tuple[tuple, tuple, dict[str, int]]:
    """Grid, sizes and constants of a launch, for (N, C, h, w) logits of images of ``size``."""
    s, (images, classes, rows, columns) = stride_of(logits, size), logits.shape
    quads = max(1, TILE // s**2)
    grid = triton.cdiv((rows + 1) * (columns + 1), quads), images
    return grid, (classes, rows, columns, *size), {"S": s, "Q": quads}


def _walk(
    logits: Tensor, loss: tuple, each: Tensor | None, factor: Tensor | None, gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """One launch of the loss.

    Args:
        logits: (N, C, h, w).
        loss: of `_loss_of`.
        each: (N, H, W) float32, filled with the pixels' losses; None sums them instead.
        factor: (N, H, W) gradient of the pixels' losses; only with ``each``.
        gradient: compute the logits' gradient.

    Returns:
        (N, groups, 2) sums of loss and weight, and the (N, C, h, w) float32 gradient of the sum of
        factor x loss.
    """
    target, ignore, weight, smoothing = loss
    grid, sizes, constants = _tiles(logits, tuple(target.shape[1:]))
    (groups, n), classes, rows, columns = grid, sizes[0], sizes[1] + 1, sizes[2] + 1
    sums = parts = torch.empty(n, groups, 2, device=logits.device)
    whole = constants["S"] == 1
    if gradient:
        shape = logits.shape if whole else (4, n, classes, rows, columns)
        parts = torch.empty(shape, device=logits.device)
    images, step, down, along = logits.stride()
    out = sums if factor is None else factor, sums if each is None else each, sums, parts
    strides = images, groups, step, down, along
    args = logits, target, weight, *out, *sizes, *strides, ignore, smoothing
    launch(loss_kernel, grid, *args, EACH=each is not None, GRADIENT=gradient, **constants)
    if not gradient:
        return sums, None
    if whole:
        return sums, parts
    grad = torch.zeros(n, classes, rows + 1, columns + 1, device=logits.device)
    for part, y, x in zip(parts, (0, 0, 1, 1), (0, 1, 0, 1)):
        grad[:, :, y : y + rows, x : x + columns] += part
    return sums, fold_border(grad)


def sums(logits: Tensor, *args) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `cfnseg.ops.dense_lean.sums`."""
    *loss, wanted = args
    parts, grad = _walk(logits, _loss_of(logits, *loss), None, None, wanted)
    total, amount = parts.double().sum((0, 1)).float()
    return total, amount, grad


def each(logits: Tensor, target: Tensor, *loss) -> Tensor:
    """As `cfnseg.ops.dense_lean.each`."""
    result = torch.empty(target.shape, device=logits.device)
    _walk(logits, _loss_of(logits, target, *loss), result, None, False)
    return result


def each_backward(grad: Tensor, logits: Tensor, *loss) -> Tensor:
    """As `cfnseg.ops.dense_lean.each_backward`."""
    each, factor = torch.empty_like(grad), grad.contiguous()
    return cast(Tensor, _walk(logits, _loss_of(logits, *loss), each, factor, True)[1])


def _loss_of(
    logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None, smoothing: float
) -> tuple:
    """The loss as `_walk` takes it.

    Two dtypes of the target, and weights that always exist, halve the kernels twice.
    """
    target = target.contiguous() if target.dtype == torch.uint8 else target.long().contiguous()
    if weight is None:
        weight = torch.ones(logits.shape[1], device=logits.device)
    weight = weight.to(logits.device).float().contiguous()
    return target, ignore_index, weight, float(smoothing)


def argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """See `cfnseg.ops.dense_argmax`."""
    return _found(logits, size, False)[0]


def scores(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """See `cfnseg.ops.dense_scores`."""
    return _found(logits, size, True)


def _found(logits: Tensor, size: tuple[int, int], with_scores: bool) -> tuple[Tensor, Tensor]:
    grid, sizes, constants = _tiles(logits, size)
    found = torch.empty(len(logits), *size, dtype=class_dtype(logits), device=logits.device)
    chances = torch.empty(found.shape, device=logits.device) if with_scores else found
    args = logits, found, chances, *sizes, *logits.stride()
    launch(classes_kernel, grid, *args, SCORES=with_scores, **constants)
    return found, chances
