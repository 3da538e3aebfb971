"""The confusion matrix as a heatmap: which cells to draw, how large, and the mistakes worth naming."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Cell = tuple[int, int, float, int]  # row, column, share of the row in 0..1, count


@dataclass(frozen=True)
class Heatmap:
    """What the template draws.

    Attributes:
        names: of the classes, shortened.
        cell: side of a cell in pixels.
        margin: room for the names, in pixels.
        cells: those that are drawn.
        most: the largest count.
        mistakes: the off-diagonal cells with the highest counts, highest first.
    """

    names: list[str]
    cell: int
    margin: int
    cells: list[Cell]
    most: int
    mistakes: list[Cell]


def heatmap(confusion: list[list[int]], names: list[str], mistakes: int = 6, drawn: int = 4000) -> Heatmap:
    """The heatmap of a C x C confusion matrix, rows = truth.

    Empty cells are not drawn, and of more than ``drawn`` cells only those with the largest shares of their rows: 171 classes
    have 29,241 cells, and the page has to stay small.
    """
    matrix = np.array(confusion, np.int64)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    cells = [(int(r), int(c), float(share[r, c]), int(matrix[r, c])) for r, c in zip(*np.nonzero(matrix))]
    wrong = sorted((cell for cell in cells if cell[0] != cell[1]), key=lambda cell: (-cell[3], cell))
    strongest = sorted(cells, key=lambda cell: (-cell[2], cell))[:drawn]
    short = [name if len(name) <= 18 else name[:17] + "…" for name in names]
    side = min(44, max(9, 520 // len(names)))
    letter = 6.6 if side >= 12 else 5  # small cells have small names
    return Heatmap(short, side, 16 + round(letter * max(map(len, short))), sorted(strongest), int(matrix.max(initial=0)), wrong[:mistakes])


def compact(count: int) -> str:
    """A count in at most four letters, for a cell: 987, 1.2k, 12k, 3.4M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.1f}{letter}" if count < 9.95 * size else f"{count / size:.0f}{letter}"
    return str(count)
