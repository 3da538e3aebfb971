"""Charts: geometry of the pages' SVG, which templates draw, and PNG files by matplotlib.

SVG user units are about a CSS pixel each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfnseg.report.text import Cell, percent, score, share, signed

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 230, 44, 12, 10, 30  # of a chart and its margins
SQUARE, SHARES = 200, 40  # side of the reliability diagram, height of the shares below it
FIFTHS = [0, 0.2, 0.4, 0.6, 0.8, 1.0]


@dataclass(frozen=True)
class Line:
    """One curve: CSS class, caption, SVG points, and (x, y, text) marks to hover over."""

    style: str
    text: str
    points: str
    marks: list[tuple[float, float, str]]


@dataclass(frozen=True)
class Chart:
    """Curves over one pair of axes; ticks are (place, text)."""

    title: str
    lines: list[Line]
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]


@dataclass(frozen=True)
class Bar:
    """A bin of the reliability diagram.

    Attributes:
        x, width: left end and width.
        accuracy, confidence: y in 0..SQUARE from the top.
        share: height of its share of the pixels in 0..SHARES.
        text: the numbers.
    """

    x: float
    width: float
    accuracy: float
    confidence: float
    share: float
    text: str


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram (Guo et al., ICML 2017) with the expected calibration error."""

    bars: list[Bar]
    ece: float
    verdict: str


@dataclass(frozen=True)
class Heatmap:
    """A confusion matrix.

    Attributes:
        names: of the classes, shortened.
        cell: side of a cell in pixels.
        margin: room for the names in pixels.
        cells: the drawn cells.
        most: the largest count.
        mistakes: off-diagonal cells of the highest shares of their rows, highest first.
        frequent: off-diagonal cells of the highest counts, highest first.
    """

    names: list[str]
    cell: int
    margin: int
    cells: list[Cell]
    most: int
    mistakes: list[Cell]
    frequent: list[Cell]


def charts(log: list[dict[str, Any]]) -> list[Chart]:
    """Learning curves of loss, mIoU and top-1 error from the rows of log.jsonl, where known."""
    train, val = ("train", "training", series(log, "loss")), "validation"
    wanted = [
        ("Loss", [train, ("val", val, series(log, "val_loss"))], np.argmin),
        ("Validation mIoU", [("val", val, series(log, "val_miou"))], np.argmax),
        ("Validation top-1 error", [("val", val, series(log, "val_top1_error"))], np.argmin),
    ]
    drawn = []
    for title, curves, best in wanted:
        curves = [curve for curve in curves if len(curve[2])]
        if curves:
            drawn.append(_learning_curve(title, curves, best))
    return drawn


def series(log: list[dict[str, Any]], key: str, most: int = 240) -> np.ndarray:
    """(n, 2) float64 of epoch and value; null values are left out.

    A longer series becomes ``most`` points, each the mean of its share.
    """
    known = [(row["epoch"], row[key]) for row in log if row.get(key) is not None]
    rows = np.array(known, np.float64).reshape(-1, 2)
    return (
        np.array([part.mean(0) for part in np.array_split(rows, most)])
        if len(rows) > most
        else rows
    )


def ticks(high: float, most: int = 5) -> np.ndarray:
    """Round numbers from 0 to at least ``high`` > 0, at most ``most`` steps."""
    step = _round_step(high / most)
    return np.arange(math.ceil(high / step - 1e-9) + 1) * step


def trimap_chart(trimap: list[dict[str, Any]] | None, miou: float | None) -> Chart | None:
    """mIoU by width of the band around true boundaries; None if nothing was counted.

    Widths double from one to the next, so they stand at equal distances. ``trimap`` and ``miou``
    are from report.json.
    """
    known = [row for row in trimap or () if row["miou"] is not None]
    if not known or miou is None:
        return None
    places = [k + 0.5 for k in range(len(known))]
    band = np.array([(x, row["miou"]) for x, row in zip(places, known)])
    notes = [f"within {row['width']} px: {percent(row['miou'])}" for row in known]
    first = f"in the band, {percent(known[0]['miou'])} at {known[0]['width']} px"
    curves = [
        ("train", f"whole images, {percent(miou)}", np.array([(0, miou), (len(known), miou)]), []),
        ("val", first, band, notes),
    ]
    widths = [(x, f"{row['width']} px") for x, row in zip(places, known)]
    return _chart(
        "mIoU near boundaries", curves, len(known), widths, [(t, f"{100 * t:g}") for t in FIFTHS]
    )


def reliability(calibration: dict[str, Any] | None) -> Reliability | None:
    """The reliability diagram of report.json's calibration; None if no pixel was counted."""
    bins = [row for row in calibration["bins"] if row["pixels"]] if calibration else []
    if not bins:
        return None
    pixels = np.array([row["pixels"] for row in bins])
    sure, right = (
        float(np.average([row[key] for row in bins], weights=pixels))
        for key in ("confidence", "accuracy")
    )
    gap = sure - right
    kind = (
        "about as sure as it is right"
        if abs(gap) < 0.01
        else ("too sure" if gap > 0 else "not sure enough")
    )
    bars = [
        Bar(
            round(SQUARE * row["low"], 2),
            round(SQUARE * (row["high"] - row["low"]), 2),
            round(SQUARE * (1 - row["accuracy"]), 2),
            round(SQUARE * (1 - row["confidence"]), 2),
            round(max(0.5, SHARES * row["pixels"] / float(pixels.max())), 2),
            f"{percent(row['low'])} to {percent(row['high'])} % sure: "
            f"on average {share(row['confidence'])} sure, {share(row['accuracy'])} right; "
            f"{row['pixels']:,} px, {share(row['pixels'] / float(pixels.sum()))} of all",
        )
        for row in bins
    ]
    verdict = f"On average {share(sure)} sure and {share(right)} right: {kind}."
    return Reliability(bars, calibration["ece"], verdict)


def heatmap(
    confusion: list[list[int]], names: list[str], mistakes: int = 6, drawn: int = 4000
) -> Heatmap:
    """The heatmap of a C x C confusion matrix, rows = truth.

    Only the ``drawn`` non-empty cells with the largest shares of their rows are drawn: 171 classes
    have 29,241 cells, and the page has to stay small.
    """
    matrix = np.array(confusion, np.int64)
    part = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    cells = [
        (int(r), int(c), float(part[r, c]), int(matrix[r, c])) for r, c in zip(*np.nonzero(matrix))
    ]
    by_share = sorted(cells, key=lambda cell: (-cell[2], -cell[3], cell))
    by_count = sorted(cells, key=lambda cell: (-cell[3], cell))
    wrong, frequent = (
        [cell for cell in order if cell[0] != cell[1]][:mistakes] for order in (by_share, by_count)
    )
    short = [name if len(name) <= 18 else name[:17] + "…" for name in names]
    side = min(44, max(9, 520 // len(names)))
    letter = 6.6 if side >= 12 else 5  # small cells have small names
    return Heatmap(
        short,
        side,
        16 + round(letter * max(map(len, short))),
        sorted(by_share[:drawn]),
        int(matrix.max(initial=0)),
        wrong,
        frequent,
    )


def interval_axis(
    value: float | None, interval: Sequence[float | None], difference: bool = False
) -> dict[str, Any] | None:
    """An axis about three times as wide as the interval; None if nothing was counted.

    Args:
        value, interval: a score and its ends in 0..1, or a difference and its ends in -1..1.
        difference: include 0 and give the ticks signs.

    Returns:
        score, low, high and zero (None for a score): places in 0..1 of the axis; ticks: place and
        text of each.
    """
    low, high = interval
    if value is None or low is None or high is None:
        return None
    room, least = max(high - low, 0.004), -1 if difference else 0
    start, stop = max(least, low - room), min(1, high + room)
    if difference:
        start, stop = min(start, 0), max(stop, 0)
    step = _round_step((stop - start) / 5)
    first, last = math.floor(start / step + 1e-9), math.ceil(stop / step - 1e-9)

    def place(x: float) -> float:
        return (x / step - first) / (last - first)

    marks = [
        (place(k * step), signed(k * step) if difference else f"{100 * k * step:.4g}")
        for k in range(first, last + 1)
    ]
    return {
        "score": place(value),
        "low": place(low),
        "high": place(high),
        "ticks": marks,
        "zero": place(0) if difference else None,
    }


def compact(count: int) -> str:
    """A count in at most four letters, for a cell: 987, 1.2k, 12k, 3.4M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.{int(count < 9.95 * size)}f}{letter}"
    return str(count)


def _learning_curve(title: str, curves: list[tuple], best) -> Chart:
    values = np.concatenate([rows for _, _, rows in curves])
    last, high = (max(values[:, k].max(), 1e-9) for k in (0, 1))
    drawn = []
    for style, name, rows in curves:
        text, notes = name, []
        if style == "val":
            epoch, value = rows[best(rows[:, 1])]
            text = f"{name}, best {score(value, title)} at epoch {epoch:.4g}"
            notes = [f"epoch {e:.4g}: {score(v, title)}" for e, v in rows]
        drawn.append((style, text, rows, notes))
    unit = 1 if title == "Loss" else 100
    epochs = [(t, f"{t:g}") for t in ticks(last) if t <= last * (1 + 1e-9)]
    return _chart(
        f"{title} by epoch", drawn, last, epochs, [(t, f"{unit * t:g}") for t in ticks(high)]
    )


def _chart(
    title: str,
    curves: list[tuple[str, str, np.ndarray, list[str]]],
    right: float,
    across: list[tuple[float, str]],
    up: list[tuple[float, str]],
) -> Chart:
    """A chart over 0..``right`` and 0..the last tick of ``up``.

    A curve is its CSS class, caption, (n, 2) points, and a text for each point or none.
    """

    def x(value: float) -> float:
        return round(LEFT + value / right * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - max(value, 0) / up[-1][0] * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for style, text, rows, notes in curves:
        points = [(x(a), y(b)) for a, b in rows]
        marks = [(*point, note) for point, note in zip(points, notes)]
        lines.append(Line(style, text, " ".join(f"{a},{b}" for a, b in points), marks))
    return Chart(
        title, lines, [(x(t), text) for t, text in across], [(y(t), text) for t, text in up]
    )


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 2.5, 5 x 10^n that is at least ``least`` > 0."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= least * (1 - 1e-9))
