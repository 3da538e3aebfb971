"""Geometry of the learning curves, in SVG user units (about a CSS pixel each); the template draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 230, 44, 12, 10, 30  # of a chart and its margins


@dataclass(frozen=True)
class Line:
    """One curve: its CSS class, its name with what is worth saying, SVG points, and (x, y, text) marks to hover over."""

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


def charts(log: list[dict[str, Any]]) -> list[Chart]:
    """Charts of loss, mIoU and top-1 error over epochs from the rows of log.jsonl; those that have anything to show."""
    loss, val_loss, miou, error = (series(log, key) for key in ("loss", "val_loss", "val_miou", "val_top1_error"))
    drawn = []
    if len(loss) or len(val_loss):
        drawn.append(_chart("Loss", [("train", "training", loss, None), ("val", "validation", val_loss, np.argmin)]))
    if len(miou):
        drawn.append(_chart("Validation mIoU", [("val", "validation", miou, np.argmax)]))
    if len(error):
        drawn.append(_chart("Validation top-1 error", [("val", "validation", error, np.argmin)]))
    return drawn


def series(log: list[dict[str, Any]], key: str, most: int = 240) -> np.ndarray:
    """(n, 2) float64 of epoch and value, at most ``most`` points, each the mean of its share; null values are left out."""
    rows = np.array([(row["epoch"], row[key]) for row in log if row.get(key) is not None], np.float64).reshape(-1, 2)
    return np.array([part.mean(0) for part in np.array_split(rows, most)]) if len(rows) > most else rows


def ticks(high: float, most: int = 5) -> np.ndarray:
    """Round numbers from 0 to at least ``high`` > 0, at most ``most`` steps."""
    raw = high / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    return np.arange(math.ceil(high / step - 1e-9) + 1) * step


def _chart(title: str, found: list[tuple]) -> Chart:
    found = [entry for entry in found if len(entry[2])]
    values = np.concatenate([entry[2] for entry in found])
    last = max(values[:, 0].max(), 1e-9)
    up = ticks(max(values[:, 1].max(), 1e-9))

    def x(epoch: float) -> float:
        return round(LEFT + epoch / last * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - max(value, 0) / up[-1] * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for style, name, rows, pick in found:
        marks, text = [], name
        if pick is not None:
            epoch, value = rows[pick(rows[:, 1])]
            text = f"{name}, best {value:.4f} at epoch {epoch:.4g}"
            marks = [(x(e), y(v), f"epoch {e:.4g}: {v:.4f}") for e, v in rows]
        lines.append(Line(style, text, " ".join(f"{x(e)},{y(v)}" for e, v in rows), marks))
    across = [(x(t), f"{t:g}") for t in ticks(last) if t <= last * (1 + 1e-9)]
    return Chart(f"{title} by epoch", lines, across, [(y(t), f"{t:g}") for t in up])
