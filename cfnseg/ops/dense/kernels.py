"""Cross-entropy, classes and scores from coarse logits as Triton kernels for CUDA; deterministic, no atomics.

The stride x stride pixels between the centres of the same four cells (a quad) are blends of the same four logits. A program has
the pixels of some quads and walks the classes: once for the sum of exponentials, once more for the gradient, which it sums over
a quad's pixels for each of the four cells. Those (4, N, C, quads) parts, a quarter of the logits at the image's size at stride
4, are added up cell by cell afterwards. At stride 1 a pixel is a cell, and its gradient is written once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from cfnseg.ops import launch
from cfnseg.ops.dense.reference import stride_of

TILE = 1024  # pixels of a program
# a value of these is not compiled in, so that another size of image needs no other kernel
SIZES = ("classes", "rows", "columns", "height", "width", "images", "step", "down")


@triton.jit
def _quads(first, logits, rows, columns, height, width, along, down, S: tl.constexpr, Q: tl.constexpr):
    """Of Q quads: their pointers to four cells (Q,), row and column of their pixels (Q, S * S), those inside, and (S * S,) blends."""
    quad = first + tl.arange(0, Q)
    i, j = quad // (columns + 1), quad % (columns + 1)
    above, below = tl.maximum(i - 1, 0) * down, tl.minimum(i, rows - 1) * down
    left, right = tl.maximum(j - 1, 0) * along, tl.minimum(j, columns - 1) * along
    k = tl.arange(0, S * S)
    y, x = i[:, None] * S + (k // S - (S - S // 2))[None], j[:, None] * S + (k % S - (S - S // 2))[None]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width) & (i <= rows)[:, None]
    half = 0.5 if S > 1 else 0.0
    return quad, logits + above, logits + below, left, right, y, x, inside, (k // S + half) / S, (k % S + half) / S


@triton.jit
def _blend(above, below, left, right, ty, tx, valid):
    """(Q, S * S) logits of a class."""
    a, b = tl.load(above + left, mask=valid, other=0.0).to(tl.float32), tl.load(above + right, mask=valid, other=0.0).to(tl.float32)
    c, d = tl.load(below + left, mask=valid, other=0.0).to(tl.float32), tl.load(below + right, mask=valid, other=0.0).to(tl.float32)
    upper = a[:, None] + (b - a)[:, None] * tx[None]
    lower = c[:, None] + (d - c)[:, None] * tx[None]
    return upper + (lower - upper) * ty[None]


@triton.jit(do_not_specialize=(*SIZES, "group", "ignore", "smoothing"))
def _loss(logits, target, weight, factor, each, sums, parts, classes, rows, columns, height, width, images, group, step, down, along,
          ignore, smoothing, EACH: tl.constexpr, GRADIENT: tl.constexpr, S: tl.constexpr, Q: tl.constexpr):
    n = tl.program_id(1).to(tl.int64)
    quads = (rows + 1) * (columns + 1)
    quad, above, below, left, right, y, x, inside, ty, tx = _quads(
        tl.program_id(0) * Q, logits + n * images, rows, columns, height, width, along, down, S, Q)
    valid = quad < quads
    pixel = n * height * width + y * width + x
    truth = tl.load(target + pixel, mask=inside, other=0).to(tl.int64)
    counted = inside & (truth != ignore)
    wrong = counted & ((truth < 0) | (truth >= classes))
    truth = tl.where(counted & ~wrong, truth, 0)
    top = tl.full((Q, S * S), float("-inf"), tl.float32)
    total, true, others = tl.zeros((Q, S * S), tl.float32), tl.zeros((Q, S * S), tl.float32), tl.zeros((Q, S * S), tl.float32)
    amount = 0.0
    a, b = above, below  # pointers walk the classes: class x step may not fit 32 bits
    for c in range(classes):
        w = tl.load(weight + c)
        z = _blend(a, b, left, right, ty, tx, valid)
        a += step
        b += step
        larger = tl.maximum(top, z)
        total = total * tl.exp(top - larger) + tl.exp(z - larger)
        top = larger
        true = tl.where(truth == c, z, true)
        others += w * z
        amount += w
    soft = smoothing / classes
    log = top + tl.log(total)
    counts = tl.where(counted, tl.load(weight + truth), 0.0)
    hard = (1.0 - smoothing) * counts
    soft = tl.where(counted, soft, 0.0)
    loss = hard * (log - true) + soft * (amount * log - others)
    loss = tl.where(wrong, float("nan"), loss)
    if EACH:
        tl.store(each + pixel, loss, mask=inside)
    else:
        slot = (n * group + tl.program_id(0)) * 2
        tl.store(sums + slot, tl.sum(tl.sum(loss, 1), 0))
        tl.store(sums + slot + 1, tl.sum(tl.sum(counts, 1), 0))
    if GRADIENT:
        if EACH:
            given = tl.load(factor + pixel, mask=inside, other=0.0).to(tl.float32)
            hard *= given
            soft *= given
        share = hard + soft * amount
        out = parts + n * classes * quads + quad
        dense = parts + n * classes * height * width + y * width + x
        corner = tl.num_programs(1).to(tl.int64) * classes * quads
        a, b = above, below
        for c in range(classes):
            z = _blend(a, b, left, right, ty, tx, valid)
            a += step
            b += step
            w = tl.load(weight + c)
            grad = share * tl.exp(z - log) - tl.where(truth == c, hard, 0.0) - soft * w
            if S == 1:
                tl.store(dense, grad, mask=inside)
                dense += height * width
            else:
                lower = grad * ty[None]
                upper = grad - lower
                tl.store(out, tl.sum(upper * (1.0 - tx)[None], 1), mask=valid)
                tl.store(out + corner, tl.sum(upper * tx[None], 1), mask=valid)
                tl.store(out + 2 * corner, tl.sum(lower * (1.0 - tx)[None], 1), mask=valid)
                tl.store(out + 3 * corner, tl.sum(lower * tx[None], 1), mask=valid)
                out += quads


@triton.jit(do_not_specialize=SIZES)
def _classes(logits, found, chances, classes, rows, columns, height, width, images, step, down, along, SCORES: tl.constexpr,
             S: tl.constexpr, Q: tl.constexpr):
    n = tl.program_id(1).to(tl.int64)
    quad, above, below, left, right, y, x, inside, ty, tx = _quads(
        tl.program_id(0) * Q, logits + n * images, rows, columns, height, width, along, down, S, Q)
    valid = quad < (rows + 1) * (columns + 1)
    best = tl.full((Q, S * S), float("-inf"), tl.float32)
    total, first = tl.zeros((Q, S * S), tl.float32), tl.zeros((Q, S * S), tl.int32)
    for c in range(classes):
        z = _blend(above, below, left, right, ty, tx, valid)
        above += step
        below += step
        larger = tl.maximum(best, z)
        if SCORES:
            total = total * tl.exp(best - larger) + tl.exp(z - larger)
        first = tl.where(z > best, c, first)
        best = larger
    pixel = n * height * width + y * width + x
    tl.store(found + pixel, first, mask=inside)
    if SCORES:
        tl.store(chances + pixel, 1.0 / total, mask=inside)


class _Tiles:
    """What both kernels are told of (N, C, h, w) logits of images of ``size``."""

    def __init__(self, logits: Tensor, size: tuple[int, int]) -> None:
        s, (images, self.classes, self.rows, self.columns) = stride_of(logits, size), logits.shape
        quads = max(1, TILE // s**2)
        self.groups = triton.cdiv((self.rows + 1) * (self.columns + 1), quads)
        self.grid = self.groups, images
        self.sizes = self.classes, self.rows, self.columns, *size
        self.constants = {"S": s, "Q": quads}


def _walk(logits: Tensor, loss: tuple, each: Tensor | None, factor: Tensor | None, gradient: bool) -> tuple[Tensor, Tensor | None]:
    """The (N, groups, 2) sums of loss and weight, and the (N, C, h, w) float32 gradient of the sum of factor x loss."""
    target, ignore, weight, smoothing = loss
    tiles = _Tiles(logits, tuple(target.shape[1:]))
    sums = torch.empty(len(logits), tiles.groups, 2, device=logits.device)
    shape, whole = (len(logits), tiles.classes, tiles.rows + 1, tiles.columns + 1), tiles.constants["S"] == 1
    parts = sums if not gradient else torch.empty(logits.shape if whole else (4, *shape), device=logits.device)
    images, step, down, along = logits.stride()
    launch.run(_loss, tiles.grid, logits, target, weight, sums if factor is None else factor, sums if each is None else each, sums,
               parts, *tiles.sizes, images, tiles.groups, step, down, along, ignore, smoothing, EACH=each is not None,
               GRADIENT=gradient, **tiles.constants)
    if not gradient:
        return sums, None
    if whole:
        return sums, parts
    grad = torch.zeros(len(logits), tiles.classes, tiles.rows + 2, tiles.columns + 2, device=logits.device)
    for part, y, x in zip(parts, (0, 0, 1, 1), (0, 1, 0, 1)):
        grad[:, :, y : y + shape[2], x : x + shape[3]] += part
    return sums, inner(grad)


def inner(grad: Tensor) -> Tensor:
    """The adjoint of padding by the border: (..., h + 2, w + 2), which is overwritten, to (..., h, w)."""
    grad[..., 1, :] += grad[..., 0, :]
    grad[..., -2, :] += grad[..., -1, :]
    grad[..., 1] += grad[..., 0]
    grad[..., -2] += grad[..., -1]
    return grad[..., 1:-1, 1:-1]


def sums(logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None, smoothing: float,
         wanted: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `cfnseg.ops.dense.lean.sums`."""
    parts, grad = _walk(logits, _loss_of(logits, target, ignore_index, weight, smoothing), None, None, wanted)
    total, amount = parts.double().sum((0, 1)).float()
    return total, amount, grad


def each(logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None, smoothing: float) -> Tensor:
    """As `cfnseg.ops.dense.lean.each`."""
    result = torch.empty(target.shape, device=logits.device)
    _walk(logits, _loss_of(logits, target, ignore_index, weight, smoothing), result, None, False)
    return result


def each_backward(grad: Tensor, logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None, smoothing: float) -> Tensor:
    """As `cfnseg.ops.dense.lean.each_backward`."""
    loss = _loss_of(logits, target, ignore_index, weight, smoothing)
    return _walk(logits, loss, torch.empty_like(grad), grad.contiguous(), True)[1]


def _loss_of(logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None, smoothing: float) -> tuple:
    """What `_walk` takes: two kinds of target, and weights that always exist, halve the kernels twice."""
    target = target.contiguous() if target.dtype == torch.uint8 else target.long().contiguous()
    weight = torch.ones(logits.shape[1], device=logits.device) if weight is None else weight.to(logits.device).float().contiguous()
    return target, ignore_index, weight, float(smoothing)


def argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """See `cfnseg.ops.dense_argmax`."""
    return _found(logits, size, False)[0]


def scores(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """See `cfnseg.ops.dense_scores`."""
    return _found(logits, size, True)


def _found(logits: Tensor, size: tuple[int, int], with_scores: bool) -> tuple[Tensor, Tensor]:
    tiles = _Tiles(logits, size)
    found = torch.empty(len(logits), *size, dtype=torch.uint8 if tiles.classes <= 256 else torch.int64, device=logits.device)
    chances = torch.empty(found.shape, device=logits.device) if with_scores else found
    launch.run(_classes, tiles.grid, logits, found, chances, *tiles.sizes, *logits.stride(), SCORES=with_scores, **tiles.constants)
    return found, chances
