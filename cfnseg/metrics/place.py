"""What the place explains of the labels, measured on masks without a model.

    share(grid) = (H(1x1) - H(grid)) / H(1x1)

H is the cross-entropy of held-out pixels under the class frequencies by cell of the grid, counted
on other masks; 1x1 are the frequencies over all places. A share below 0 means that the place
misleads on unseen masks. The locally-connected fusion reads the place, so the measure proposes
its grid.

Frames of one video are neighbours by name, so masks are held out in contiguous parts: the training
masks in five, each predicted from the other four; the validation masks in parts of about that size,
predicted from all training masks.

Frequencies are smoothed by one mask: the uniform distribution counts as one mask in the frequencies
over all places, and these count as one in every cell. It is a unit-information prior (Kass and
Wasserman 1995): a mask is the least that is independent, its pixels are not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from cfnseg.data.labels import IGNORE

Grid = tuple[int, int]
GRIDS: tuple[Grid, ...] = ((1, 1), (6, 1), (6, 8), (12, 16), (24, 32))  # each divides the next
ROWS, COLUMNS = GRIDS[-1]
SIDES: Grid = (6, 8)  # where left and right are told apart: the middle is an edge of its cells
PARTS = 5
FEW = 10  # masks: with fewer, a part has one mask, and a class counts in one or two
CLEAR = 0.1  # of the entropy: columns add .03 to .04 on roads, .29 on faces; nothing in between
UNLIKELY = 2.0  # times less likely where mirrored: 140 for eyes, at most 1.2 for a pair on roads
REGAINED = 0.5  # share of that loss, in bits, which swapping the names undoes: .98 for eyes


class Share(NamedTuple):
    """A part of the label entropy, at most 1, and its 95 % interval over the parts."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Swap:
    """Two classes that are left and right: each lies where the other is mirrored to.

    Attributes:
        classes: their train ids, the smaller first.
        unlikely: how many times less likely by place either is in a mirrored mask; the smaller of
            the two geometric means over pixels.
        regained: share of that loss, in bits, which swapping the two classes undoes.
    """

    classes: tuple[int, int]
    unlikely: float
    regained: float


@dataclass(frozen=True)
class Part:
    """Masks that are held out together.

    Attributes:
        counts: (24, 32, C) int64 pixels of each class by cell.
        masks: how many.
        having: (C,) int64 masks with the class.
        trained: of the training masks.
    """

    counts: np.ndarray
    masks: int
    having: np.ndarray
    trained: bool = True


@dataclass(frozen=True)
class Place:
    """What `measure_place` found.

    Attributes:
        masks: training masks with a counted pixel.
        parts: how many were held out.
        entropy: H(1x1) in bits a pixel.
        shares: of each grid in `GRIDS`.
        grid: the proposal: the coarsest to which no finer grid adds a tenth of the entropy, with
            0 below the interval; None if some grid explains a tenth, but none for certain.
        gain: the most that a finer grid adds to it (None: to 1x1); 0 for the finest.
        swaps: classes that are left and right.
        counts: (24, 32, C) int64 training pixels of each class by cell.
    """

    masks: int
    parts: int
    entropy: float
    shares: dict[Grid, Share]
    grid: Grid | None
    gain: Share
    swaps: list[Swap]
    counts: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Its part of doctor.json."""
        return {
            "masks": self.masks,
            "parts": self.parts,
            "entropy_bits": self.entropy,
            "grids": [
                {"grid": list(grid), "share": share.value, "low": share.low, "high": share.high}
                for grid, share in self.shares.items()
            ],
            "proposal": self.grid and list(self.grid),
        }


def sampled(mask: np.ndarray) -> np.ndarray:
    """The pixel at the centre of each cell of the finest grid: (24, 32, ...) of (H, W, ...).

    A mask costs 768 bytes, whatever its size. Every mask and every cell counts the same.
    """
    rows, columns = (
        (2 * np.arange(cells) + 1) * side // (2 * cells)
        for cells, side in zip((ROWS, COLUMNS), mask.shape)
    )
    return mask[rows[:, None], columns]


def count_part(masks: np.ndarray, classes: int, trained: bool = True) -> Part:
    """The `Part` of (n, 24, 32) uint8 train ids; 255 is not counted."""
    counts = np.zeros((ROWS, COLUMNS, classes), np.int64)
    having = np.zeros(classes, np.int64)
    for c in range(classes):  # one class at a time bounds the memory
        same = masks == c
        counts[..., c], having[c] = same.sum(0), same.any((1, 2)).sum()
    return Part(counts, len(masks), having, trained)


def coarsened(counts: np.ndarray, grid: Grid) -> np.ndarray:
    """Counts by cell of a grid that divides theirs: (gh, gw, C) of (h, w, C)."""
    (height, width), (rows, columns) = grid, counts.shape[:2]
    return counts.reshape(height, rows // height, width, columns // width, -1).sum((1, 3))


def frequencies(counts: np.ndarray, masks: int, grid: Grid) -> np.ndarray:
    """The smoothed class frequencies by cell: (gh, gw, C) float64, above 0, with sum 1.

    Args:
        counts: (24, 32, C) pixels of each class, at least one.
        masks: that they were counted on.
        grid: one of `GRIDS`.
    """
    mask = counts.sum() / masks  # pixels of one
    overall = _smoothed(counts.sum((0, 1)), np.full(counts.shape[-1], 1 / counts.shape[-1]), mask)
    if grid == GRIDS[0]:
        return overall[None, None]
    return _smoothed(coarsened(counts, grid), overall, mask / math.prod(grid))


def _smoothed(counts: np.ndarray, prior: np.ndarray, weight: float) -> np.ndarray:
    return (counts + weight * prior) / (counts.sum(-1, keepdims=True) + weight)


def split_parts(train: np.ndarray, val: np.ndarray, classes: int) -> list[Part]:
    """The parts of training and validation masks: (n, 24, 32) uint8 train ids, in order of names.

    Masks without a counted pixel are left out.
    """
    train, val = (masks[(masks != IGNORE).any((1, 2))] for masks in (train, val))
    parts = [count_part(part, classes) for part in np.array_split(train, PARTS)]
    if len(val):
        alike = min(PARTS, max(1, round(PARTS * len(val) / max(1, len(train)))))
        parts += [count_part(part, classes, False) for part in np.array_split(val, alike)]
    return parts


def measure_place(train: np.ndarray, val: np.ndarray, classes: int) -> Place | None:
    """What the place explains of the labels.

    Args:
        train, val: (n, 24, 32) uint8 train ids as `sampled` makes them, in order of their names;
            255 is not counted.
        classes: C, 2 or more.

    Returns:
        None if fewer than 10 training masks have a counted pixel.
    """
    parts = split_parts(train, val, classes)
    whole, masks = _others(parts, None)
    if masks < FEW:
        return None
    losses = np.zeros((len(parts), len(GRIDS)))
    for k, part in enumerate(parts):
        known = _others(parts, k)
        for g, grid in enumerate(GRIDS):
            bits = np.log2(frequencies(*known, grid))
            losses[k, g] = -(coarsened(part.counts, grid) * bits).sum()

    def gain(coarse: int, fine: int) -> Share:
        return _ratio(losses[:, coarse] - losses[:, fine], losses[:, 0])

    best, finest = 0, len(GRIDS)
    for g in range(1, finest):
        more = gain(best, g)
        if more.value >= CLEAR and more.low > 0:
            best = g
    most = max((gain(best, g) for g in range(best + 1, finest)), default=Share(0.0, 0.0, 0.0))
    return Place(
        masks,
        len(parts),
        float(losses[:, 0].sum() / sum(part.counts.sum() for part in parts)),
        {grid: gain(0, g) for g, grid in enumerate(GRIDS)},
        None if best == 0 and most.value >= CLEAR else GRIDS[best],
        most,
        find_swaps(parts),
        whole,
    )


def _others(parts: Sequence[Part], held: int | None) -> tuple[np.ndarray, int]:
    """Counts and number of the training masks outside a part."""
    own = [part for k, part in enumerate(parts) if part.trained and k != held]
    return np.sum([part.counts for part in own], 0), sum(part.masks for part in own)


def _ratio(part: np.ndarray, whole: np.ndarray) -> Share:
    """sum(part) / sum(whole) with Student's t interval over the (parts,) values.

    Source: the ratio estimator's variance, Cochran 1977, Sampling Techniques, ch. 6.
    """
    count, value = len(part), part.sum() / whole.sum()
    error = (part - value * whole).std(ddof=1) / math.sqrt(count) / whole.mean()
    half = stdtrit(count - 1, 0.975) * error
    return Share(float(value), float(value - half), min(1.0, float(value + half)))


def find_swaps(parts: Sequence[Part]) -> list[Swap]:
    """The pairs of classes that are left and right, by held-out masks and their mirror images.

    A pair: in a mirrored mask either class is at least twice less likely by place, and swapping
    both names undoes at least half of that loss. A class on one side without such a partner is
    none, nor are two classes at different heights. Classes in fewer than 10 masks are left out.
    """
    classes = parts[0].counts.shape[-1]
    plain, mirrored = np.zeros((2, classes, classes))  # bits of class b at the pixels of class a
    for k, part in enumerate(parts):
        bits = np.log2(frequencies(*_others(parts, k), SIDES)).reshape(-1, classes)
        cells = coarsened(part.counts, SIDES)
        plain += cells.reshape(-1, classes).T @ bits
        mirrored += cells[:, ::-1].reshape(-1, classes).T @ bits
    pixels = np.maximum(1, sum(part.counts.sum((0, 1)) for part in parts))[:, None]
    own = np.diag(plain / pixels)
    mirrored /= pixels
    lost = own - np.diag(mirrored)
    still = own[:, None] - mirrored  # lost by class a if it is called b
    often = sum(part.having for part in parts) >= FEW
    candidates = np.flatnonzero(often & (lost >= math.log2(UNLIKELY))).tolist()
    swaps = []
    for a in candidates:
        for b in (b for b in candidates if b > a):
            regained = 1 - (still[a, b] + still[b, a]) / (lost[a] + lost[b])
            if regained >= REGAINED:
                least = float(2 ** min(lost[a], lost[b]))
                swaps.append(Swap((a, b), least, float(regained)))
    return swaps


def named_sides(names: list[str]) -> list[tuple[str, str]]:
    """The pairs of names that differ in left and right alone: eye_left and eye_right, l_ear, r_ear.

    Upper and lower case do not matter. Each pair is in the order of ``names``.
    """
    known, pairs = {name.lower(): name for name in names}, []
    for low, name in known.items():
        for left, right in (("left", "right"), (r"(?<![^\W_])l(?![^\W_])", "r")):
            other = re.sub(left, right, low)
            if other != low and other in known:
                first, second = sorted((name, known[other]), key=names.index)
                pairs.append((first, second))
    return pairs
