"""Geometry of the page's charts of boundaries, sizes and calibration, in SVG user units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cfnseg.report.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Line
from cfnseg.report.markdown import shown

SQUARE, SHARES = 200, 40  # side of the reliability diagram, height of the shares below it
FIFTHS = [0, 0.2, 0.4, 0.6, 0.8, 1.0]


@dataclass(frozen=True)
class Bar:
    """A bin of the reliability diagram: left end and width, accuracy's top, confidence's place, share's height, and its text.

    ``accuracy`` and ``confidence`` are y in 0..SQUARE from the top, ``share`` is a height in 0..SHARES.
    """

    x: float
    width: float
    accuracy: float
    confidence: float
    share: float
    text: str


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram (Guo et al., ICML 2017): its bars, the calibration error, and what they say in words."""

    bars: list[Bar]
    ece: float
    verdict: str


def trimap_chart(trimap: list[dict[str, Any]] | None, miou: float | None) -> Chart | None:
    """mIoU by the width of the band around true boundaries, with the whole image's as a line; None if nothing was counted.

    Args:
        trimap, miou: those of report.json. Widths double from one to the next, so they stand at equal distances.
    """
    known = [row for row in trimap or () if row["miou"] is not None]
    if not known or miou is None:
        return None

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - value * (HEIGHT - TOP - BOTTOM), 1)

    step = (WIDTH - LEFT - RIGHT) / len(known)
    across = [(round(LEFT + step * (i + 0.5), 1), row["width"]) for i, row in enumerate(known)]
    marks = [(x, y(row["miou"]), f"within {row['width']} px: {shown(row['miou'])}") for (x, _), row in zip(across, known)]
    lines = [Line("train", f"whole images, {shown(miou)}", f"{LEFT},{y(miou)} {WIDTH - RIGHT},{y(miou)}", []),
             Line("val", f"in the band, {shown(known[0]['miou'])} at {known[0]['width']} px",
                  " ".join(f"{x},{top}" for x, top, _ in marks), marks)]
    return Chart("mIoU near boundaries", lines, [(x, f"{width} px") for x, width in across], [(y(t), f"{t:g}") for t in FIFTHS])


def reliability(calibration: dict[str, Any] | None) -> Reliability | None:
    """The reliability diagram of report.json's calibration; None if no pixel was counted."""
    bins = [row for row in calibration["bins"] if row["pixels"]] if calibration else []
    if not bins:
        return None
    total, most = sum(row["pixels"] for row in bins), max(row["pixels"] for row in bins)
    bars = [_bar(row, total, most) for row in bins]
    sure, right = (sum(row["pixels"] * row[key] for row in bins) / total for key in ("confidence", "accuracy"))
    gap = sure - right
    kind = "about as sure as it is right" if abs(gap) < 0.01 else "too sure" if gap > 0 else "not sure enough"
    return Reliability(bars, calibration["ece"], f"On average {100 * sure:.1f} % sure and {100 * right:.1f} % right: {kind}.")


def _bar(row: dict[str, Any], total: int, most: int) -> Bar:
    sure, right, share = (f"{100 * x:.1f} %" for x in (row["confidence"], row["accuracy"], row["pixels"] / total))
    text = f"{row['low']:.2f} to {row['high']:.2f}: on average {sure} sure, {right} right; {row['pixels']:,} px, {share} of all"
    return Bar(round(SQUARE * row["low"], 2), round(SQUARE * (row["high"] - row["low"]), 2), round(SQUARE * (1 - row["accuracy"]), 2),
               round(SQUARE * (1 - row["confidence"]), 2), round(max(0.5, SHARES * row["pixels"] / most), 2), text)
