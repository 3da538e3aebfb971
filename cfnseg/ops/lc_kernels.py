"""Triton kernels of the fusion, in 16 or 32 bits with float32 sums; deterministic, no atomics.

A program has a tile of rows x columns x channels of the result. It interpolates row by row over the
few source rows that the tile touches: a row's weight times the row, blended between two columns.
So neighbours are loaded once a column, not once a pixel. Branches and grids are read alike. The
adjoint goes axis by axis: a kernel sums over the rows that touch a source row (a gather, so nothing
is added in place), then a matrix product with the columns' interpolation matrix finishes it.
"""

from __future__ import annotations

import triton
import triton.language as tl

# values that are not compiled in, so another size of image needs no other kernel
SIZES = (
    *("heights", "widths", "height", "width", "gh", "gw", "step", "blocks", "knots", "rows"),
    *("columns", "other_step", "other_region_step"),
)


@triton.jit
def _ends(region):
    return tl.load(region), tl.load(region + 1), tl.load(region + 2), tl.load(region + 3)


@triton.jit
def _places(cells, start, stop, count, knots):
    at = (start + (stop - start) * ((cells + 0.5) / count)) * knots - 0.5
    return tl.minimum(tl.maximum(at, 0.0), knots - 1.0)


@triton.jit
def _read(source, knots, columns, y, x, k, width, here):
    """(R, X, K) values of a (knots, columns, width) map at y (R,), x (X,), in float32."""
    left = tl.floor(x).to(tl.int32)
    right = tl.minimum(left + 1, columns - 1)
    t = (x - left)[:, None]
    first = tl.min(tl.floor(y), 0).to(tl.int32)
    last = tl.minimum(tl.max(tl.ceil(y), 0).to(tl.int32), knots - 1)
    total = tl.zeros((y.shape[0], x.shape[0], k.shape[0]), tl.float32)
    for row in range(first, last + 1):
        line = source + row * columns * width + k[None, :]
        a = tl.load(line + left[:, None] * width, mask=here[None, :], other=0.0).to(tl.float32)
        b = tl.load(line + right[:, None] * width, mask=here[None, :], other=0.0).to(tl.float32)
        share = tl.maximum(1.0 - tl.abs(y - row), 0.0)
        total += share[:, None, None] * (a + (b - a) * t)[None]
    return total


@triton.jit(do_not_specialize=SIZES)
def fuse_kernel(
    result,
    grid,
    region,
    branches,
    heights,
    widths,
    height,
    width,
    channels,
    gh,
    gw,
    step,
    blocks,
    S: tl.constexpr,
    FIRST: tl.constexpr,
    RELU: tl.constexpr,
    R: tl.constexpr,
    X: tl.constexpr,
    K: tl.constexpr,
):
    """FIRST: the first branch has the result's size."""
    n = tl.program_id(2)
    i = tl.program_id(0) // blocks * R + tl.arange(0, R)
    j = tl.program_id(0) % blocks * X + tl.arange(0, X)
    k = tl.program_id(1) * K + tl.arange(0, K)
    here = k < channels
    x0, y0, x1, y1 = _ends(region + n * step)
    gy, gx = _places(i, y0, y1, height, gh), _places(j, x0, x1, width, gw)
    place = (i[:, None, None] * width + j[None, :, None]) * channels + k[None, None, :]
    inside = (i < height)[:, None, None] & (j < width)[None, :, None] & here[None, None, :]
    total = _read(grid, gh, gw, gy, gx, k, channels, here)
    for s in tl.static_range(S):
        branch = branches[s] + n.to(tl.int64) * heights[s] * widths[s] * channels
        if FIRST and s == 0:
            values = tl.load(branch + place, mask=inside, other=0.0).to(tl.float32)
        else:
            y, x = _places(i, 0.0, 1.0, height, heights[s]), _places(j, 0.0, 1.0, width, widths[s])
            values = _read(branch, heights[s], widths[s], y, x, k, channels, here)
        total += values * _read(
            grid + (s + 1) * gh * gw * channels, gh, gw, gy, gx, k, channels, here
        )
    if RELU:
        total = tl.maximum(total, 0.0)
    tl.store(result + n.to(tl.int64) * height * width * channels + place, total, mask=inside)


@triton.jit
def _part(grad, result, place, inside, RELU: tl.constexpr):
    """The gradient that reaches the sum, in float32."""
    part = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        part = tl.where(tl.load(result + place, mask=inside, other=0.0) > 0, part, 0.0)
    return part


@triton.jit(do_not_specialize=SIZES)
def scale_kernel(
    out,
    grad,
    result,
    weight,
    region,
    height,
    width,
    channels,
    gh,
    gw,
    step,
    blocks,
    RELU: tl.constexpr,
    R: tl.constexpr,
    X: tl.constexpr,
    K: tl.constexpr,
):
    """Gradient of a branch of the result's size: weight x part."""
    n = tl.program_id(2)
    i = tl.program_id(0) // blocks * R + tl.arange(0, R)
    j = tl.program_id(0) % blocks * X + tl.arange(0, X)
    k = tl.program_id(1) * K + tl.arange(0, K)
    x0, y0, x1, y1 = _ends(region + n * step)
    inside = (
        (i < height)[:, None, None] & (j < width)[None, :, None] & (k < channels)[None, None, :]
    )
    place = (
        n.to(tl.int64) * height * width * channels
        + (i[:, None, None] * width + j[None, :, None]) * channels
        + k[None, None, :]
    )
    read = _read(
        weight,
        gh,
        gw,
        _places(i, y0, y1, height, gh),
        _places(j, x0, x1, width, gw),
        k,
        channels,
        k < channels,
    )
    tl.store(out + place, _part(grad, result, place, inside, RELU) * read, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def fold_kernel(
    out,
    grad,
    result,
    other,
    region,
    other_region,
    height,
    width,
    channels,
    knots,
    rows,
    columns,
    other_step,
    step,
    other_region_step,
    OTHER: tl.constexpr,
    RELU: tl.constexpr,
    R: tl.constexpr,
    X: tl.constexpr,
    K: tl.constexpr,
):
    """out (N, knots, width, channels): per knot the sum of hat x part x other over its rows.

    The knots lie in ``region``, the (rows, columns) of other in ``other_region``. OTHER: 0 = it is
    1, 1 = it has the result's size, 2 = it is interpolated.
    """
    n, knot = tl.program_id(2) // knots, tl.program_id(2) % knots
    j = tl.program_id(0) * X + tl.arange(0, X)
    k = tl.program_id(1) * K + tl.arange(0, K)
    _, start, _, stop = _ends(region + n * step)
    oleft, ostart, oright, ostop = _ends(other_region + n * other_region_step)
    # rows whose places are within one knot, with one to spare for rounding; border knots also
    # take what lies beyond; in an empty or inverted region every knot takes all rows
    span = stop - start
    forward = span > 0
    scale = height / tl.where(forward, span, 1.0)
    low = ((knot - 0.5) / knots - start) * scale - 1.5
    high = ((knot + 1.5) / knots - start) * scale + 1.5
    low = tl.where(forward & (knot > 0), tl.minimum(tl.maximum(low, 0.0), height * 1.0), 0.0)
    high = tl.where(
        forward & (knot < knots - 1), tl.minimum(tl.maximum(high, 0.0), height * 1.0), height * 1.0
    )
    lowest, highest = low.to(tl.int32), high.to(tl.int32)
    total = tl.zeros((X, K), tl.float32)
    for top in range(lowest, highest, R):
        i = top + tl.arange(0, R)
        inside = (
            (i < highest)[:, None, None]
            & (j < width)[None, :, None]
            & (k < channels)[None, None, :]
        )
        place = (i[:, None, None] * width + j[None, :, None]) * channels + k[None, None, :]
        part = _part(grad, result, n.to(tl.int64) * height * width * channels + place, inside, RELU)
        if OTHER == 1:
            part *= tl.load(other + n.to(tl.int64) * other_step + place, mask=inside, other=0.0).to(
                tl.float32
            )
        if OTHER == 2:
            y, x = (
                _places(i, ostart, ostop, height, rows),
                _places(j, oleft, oright, width, columns),
            )
            part *= _read(
                other + n.to(tl.int64) * other_step, rows, columns, y, x, k, channels, k < channels
            )
        share = tl.maximum(1.0 - tl.abs(_places(i, start, stop, height, knots) - knot), 0.0)
        total += tl.sum(share[:, None, None] * part, 0)
    spot = (tl.program_id(2).to(tl.int64) * width + j[:, None]) * channels + k[None, :]
    tl.store(out + spot, total, mask=(j < width)[:, None] & (k < channels)[None, :])
