"""The dense operations as `torch.library` has them: schemas, fake results and gradients.

A compiler sees each operation as one node. Traced, its strips would be unrolled. Arguments have
been checked by `cfnseg.ops.dense`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cfnseg.ops import dense_reference
from cfnseg.ops.dense_lean import checked
from cfnseg.ops.dense_reference import class_dtype, sum_dtype
from cfnseg.ops.dispatch import run, traced

LOSS = "Tensor logits, Tensor target, int ignore_index, Tensor? weight, float smoothing"


def _operation(name: str, schema: str):
    return torch.library.custom_op(f"cfnseg::{name}", mutates_args=(), schema=schema)


@_operation("dense_cross_entropy_sums", f"({LOSS}, bool wanted) -> (Tensor, Tensor, Tensor)")
def sums(logits, target, ignore_index, weight, smoothing, wanted):
    args = logits, target, ignore_index, weight, smoothing, wanted
    total, amount, grad = run("dense", "sums", "cross_entropy", logits, *args)
    # an operation's results may share no memory
    grad = grad.clone(memory_format=torch.contiguous_format) if wanted else total.new_empty(0)
    return total.clone(), amount.clone(), grad


@sums.register_fake
def _(logits, target, ignore_index, weight, smoothing, wanted):
    shapes = (), (), logits.shape if wanted else 0
    return tuple(logits.new_empty(shape, dtype=sum_dtype(logits)) for shape in shapes)


def _keep_sums(ctx, inputs, output):
    ctx.kind = inputs[0].dtype
    ctx.save_for_backward(output[2])  # forward computed it with the loss: one pass is enough
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


@once_differentiable
def _derive_sums(ctx, grad, *_):
    (stored,) = ctx.saved_tensors
    return None if grad is None else (stored * grad).to(ctx.kind), None, None, None, None, None


sums.register_autograd(_derive_sums, setup_context=_keep_sums)


@_operation("dense_cross_entropy", f"({LOSS}) -> Tensor")
def each(logits, *rest):
    return run("dense", "each", "cross_entropy", logits, logits, *rest)


@each.register_fake
def _(logits, target, *_):
    return logits.new_empty(target.shape, dtype=sum_dtype(logits))


@_operation("dense_cross_entropy_backward", f"(Tensor grad, {LOSS}) -> Tensor")
def each_backward(grad, logits, *rest):
    result = run("dense", "each_backward", "cross_entropy", logits, grad, logits, *rest)
    return torch.empty_like(logits, memory_format=torch.contiguous_format).copy_(result)


@each_backward.register_fake
def _(grad, logits, *_):
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _keep_each(ctx, inputs, output):
    logits, target, ctx.ignore_index, weight, ctx.smoothing = inputs
    ctx.save_for_backward(logits, target, weight)


@once_differentiable
def _derive_each(ctx, grad):
    logits, target, weight = ctx.saved_tensors
    found = each_backward(grad, logits, target, ctx.ignore_index, weight, ctx.smoothing)
    return found, None, None, None, None


each.register_autograd(_derive_each, setup_context=_keep_each)


@_operation("dense_argmax", "(Tensor logits, SymInt[] size) -> Tensor")
def argmax(logits, size):
    return run("dense", "argmax", "classes", logits, logits, tuple(size))


@argmax.register_fake
def _(logits, size):
    return logits.new_empty((logits.shape[0], *size), dtype=class_dtype(logits))


@_operation("dense_scores", "(Tensor logits, SymInt[] size) -> (Tensor, Tensor)")
def scores(logits, size):
    return run("dense", "scores", "classes", logits, logits, tuple(size))


@scores.register_fake
def _(logits, size):
    shape = logits.shape[0], *size
    kinds = class_dtype(logits), torch.float32
    return tuple(logits.new_empty(shape, dtype=kind) for kind in kinds)


@_operation("dense_confusion", "(Tensor logits, Tensor target, int ignore_index) -> Tensor")
def confusion(logits, target, ignore_index):
    return count(logits, target, ignore_index)


def count(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """See `cfnseg.ops.dense_confusion`."""
    classes, size = logits.shape[1], tuple(target.shape[1:])
    predicted = (dense_reference.argmax if traced() else argmax)(logits, size)
    counted = target != ignore_index
    truth, wrong = checked(target, counted, classes)
    cells = torch.where(counted, truth * classes + predicted, classes**2).flatten()
    result = cells.new_zeros(classes**2 + 1)  # the last cell takes the pixels that do not count
    result.index_add_(0, cells, torch.ones_like(cells))  # bincount would wait for the device
    if wrong is not None:
        result = torch.where(wrong.any(), -1, result)
    return result[:-1].view(classes, classes).clone()


@confusion.register_fake
def _(logits, target, ignore_index):
    return logits.new_empty((logits.shape[1], logits.shape[1]), dtype=torch.int64)
