"""Triton kernels for cross-entropy, classes and scores; deterministic, no atomics.

A quad is the stride x stride pixels between the centres of the same four cells: they blend the
same four logits. A program has some quads and walks the classes twice: first for the sum of
exponentials, then for the gradient. It sums the gradient over a quad's pixels for each of the four
cells. These (4, N, C, quads) parts, at stride 4 a quarter of the logits at the image's size, are
summed cell by cell afterwards. At stride 1 a pixel is a cell, and its gradient is written once.
"""

from __future__ import annotations

import triton
import triton.language as tl

# values that are not compiled in, so another size of image needs no other kernel
SIZES = ("classes", "rows", "columns", "height", "width", "images", "step", "down")


@triton.jit
def _quads(
    first, logits, rows, columns, height, width, along, down, S: tl.constexpr, Q: tl.constexpr
):
    """Q quads: pointers to their four cells (Q,); row and column of their pixels, and whether they
    are inside, (Q, S * S); blends (S * S,)."""
    quad = first + tl.arange(0, Q)
    i, j = quad // (columns + 1), quad % (columns + 1)
    above, below = tl.maximum(i - 1, 0) * down, tl.minimum(i, rows - 1) * down
    left, right = tl.maximum(j - 1, 0) * along, tl.minimum(j, columns - 1) * along
    k = tl.arange(0, S * S)
    y = i[:, None] * S + (k // S - (S - S // 2))[None]
    x = j[:, None] * S + (k % S - (S - S // 2))[None]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width) & (i <= rows)[:, None]
    half = 0.5 if S > 1 else 0.0
    ty, tx = (k // S + half) / S, (k % S + half) / S
    return quad, logits + above, logits + below, left, right, y, x, inside, ty, tx


@triton.jit
def _blend(above, below, left, right, ty, tx, valid):
    """(Q, S * S) logits of a class."""
    a, b = (
        tl.load(above + left, mask=valid, other=0.0).to(tl.float32),
        tl.load(above + right, mask=valid, other=0.0).to(tl.float32),
    )
    c, d = (
        tl.load(below + left, mask=valid, other=0.0).to(tl.float32),
        tl.load(below + right, mask=valid, other=0.0).to(tl.float32),
    )
    upper = a[:, None] + (b - a)[:, None] * tx[None]
    lower = c[:, None] + (d - c)[:, None] * tx[None]
    return upper + (lower - upper) * ty[None]


@triton.jit(do_not_specialize=(*SIZES, "group", "ignore", "smoothing"))
def loss_kernel(
    logits,
    target,
    weight,
    factor,
    each,
    sums,
    parts,
    classes,
    rows,
    columns,
    height,
    width,
    images,
    group,
    step,
    down,
    along,
    ignore,
    smoothing,
    EACH: tl.constexpr,
    GRADIENT: tl.constexpr,
    S: tl.constexpr,
    Q: tl.constexpr,
):
    n = tl.program_id(1).to(tl.int64)
    quads = (rows + 1) * (columns + 1)
    quad, above, below, left, right, y, x, inside, ty, tx = _quads(
        tl.program_id(0) * Q, logits + n * images, rows, columns, height, width, along, down, S, Q
    )
    valid = quad < quads
    pixel = n * height * width + y * width + x
    truth = tl.load(target + pixel, mask=inside, other=0).to(tl.int64)
    counted = inside & (truth != ignore)
    wrong = counted & ((truth < 0) | (truth >= classes))
    truth = tl.where(counted & ~wrong, truth, 0)
    top = tl.full((Q, S * S), float("-inf"), tl.float32)
    total, true, others = (
        tl.zeros((Q, S * S), tl.float32),
        tl.zeros((Q, S * S), tl.float32),
        tl.zeros((Q, S * S), tl.float32),
    )
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
def classes_kernel(
    logits,
    found,
    chances,
    classes,
    rows,
    columns,
    height,
    width,
    images,
    step,
    down,
    along,
    SCORES: tl.constexpr,
    S: tl.constexpr,
    Q: tl.constexpr,
):
    n = tl.program_id(1).to(tl.int64)
    quad, above, below, left, right, y, x, inside, ty, tx = _quads(
        tl.program_id(0) * Q, logits + n * images, rows, columns, height, width, along, down, S, Q
    )
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
