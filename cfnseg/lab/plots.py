"""The lab's plots: sorted dots with intervals, dots against a cost, bars of ratios; one style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FAMILIES = {"CFN": "#c05621", "baseline": "#2b6cb0", "decoder": "#6b46c1"}
WIDE = 4  # largest cost over smallest from which an axis is logarithmic


class Dot(NamedTuple):
    """A system: its score with the ends of its interval, and its costs, in the order of the axes."""

    name: str
    family: str
    score: float
    low: float
    high: float
    costs: tuple[float, ...] | None


def plot_systems(path: Path, dots: Sequence[Dot], score: str, costs: Sequence[str]) -> None:
    """Scores as sorted dots with intervals, and scores against each cost.

    Args:
        path: the PNG file.
        dots: the systems; one without costs stands in the first panel alone.
        score: title of the score's axis.
        costs: titles of the costs' axes.
    """

    def draw(pyplot: Any) -> Any:
        ordered = sorted(dots, key=lambda dot: dot.score)
        figure, axes = pyplot.subplots(
            1, 1 + len(costs), figsize=(4.6 + 4.2 * len(costs), 1.4 + 0.25 * len(dots)), layout="constrained"
        )
        for row, dot in enumerate(ordered):
            color = FAMILIES[dot.family]
            axes[0].plot([dot.low, dot.high], [row, row], color=color, lw=2, alpha=0.45)
            axes[0].plot(dot.score, row, "o", color=color, ms=6)
        axes[0].set_yticks(range(len(ordered)), [dot.name for dot in ordered])
        axes[0].set_xlabel(score)
        for i, (axis, title) in enumerate(zip(axes[1:], costs)):
            measured = [dot for dot in ordered if dot.costs]
            for dot in measured:
                axis.plot(dot.costs[i], dot.score, "o", color=FAMILIES[dot.family], ms=6)
            values = [dot.costs[i] for dot in measured]
            if values and max(values) > WIDE * min(values):
                axis.set_xscale("log")
            for dot in _named(measured, i):
                axis.annotate(dot.name, (dot.costs[i], dot.score), (5, 4), textcoords="offset points", fontsize=8)
            axis.set_xlabel(title)
            axis.set_ylabel(score.split(",")[0])
        seen = {dot.family for dot in dots}
        for family in (name for name in FAMILIES if name in seen):
            axes[0].plot([], [], "o", color=FAMILIES[family], label=family)
        axes[0].legend(loc="lower right", frameon=False)
        return figure

    _save(path, draw)


def _named(dots: Sequence[Dot], cost: int) -> list[Dot]:
    """The systems to name: the best, the worst, the cheapest, every decoder; none over another name."""
    if not dots:
        return []
    wanted = [max(dots, key=lambda dot: dot.score), min(dots, key=lambda dot: dot.score)]
    wanted += [min(dots, key=lambda dot: dot.costs[cost]), *(dot for dot in dots if dot.family == "decoder")]
    wanted += sorted((dot for dot in dots if dot.family == "CFN"), key=lambda dot: -dot.score)[:1]
    near = (wanted[0].score - wanted[1].score) / 25
    named: list[Dot] = []
    for dot in wanted:
        if all(abs(dot.score - other.score) > near for other in named):
            named.append(dot)
    return named


def plot_ratios(path: Path, rows: Sequence[tuple[str, dict[str, float]]], title: str) -> None:
    """Bars of ratios with their values; a dashed line stands at 1.

    Args:
        path: the PNG file.
        rows: a label, and its ratios by name. All have the same names.
        title: of the axis.
    """

    def draw(pyplot: Any) -> Any:
        kinds = list(rows[0][1])
        figure, axis = pyplot.subplots(figsize=(9, 1.3 + 0.28 * len(rows) * (0.5 + len(kinds) / 2)), layout="constrained")
        height = 0.8 / len(kinds)
        for i, (kind, color) in enumerate(zip(kinds, FAMILIES.values())):
            places = [row + (i - (len(kinds) - 1) / 2) * height for row in range(len(rows))]
            bars = axis.barh(places, [values[kind] for _, values in rows], 0.9 * height, label=kind, color=color)
            axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        ratios = [value for _, values in rows for value in values.values()]
        if max(ratios) > WIDE:
            axis.set_xscale("log")
        axis.axvline(1, color="0.3", lw=1, ls="--")
        axis.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.set_xlabel(title)
        if len(kinds) > 1:
            axis.legend(loc="lower right", frameon=False)
        return figure

    _save(path, draw)


def _save(path: Path, draw: Callable[[Any], Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    style = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "font.size": 9}
    with pyplot.rc_context(style):
        figure = draw(pyplot)
        figure.savefig(path, format="png", dpi=110)
        pyplot.close(figure)
