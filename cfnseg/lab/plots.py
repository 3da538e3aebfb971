"""The lab's plots: one style, colours by family."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cfnseg.storage import write_atomic

FAMILIES = {"cfn": "#1d5fd1", "baselines": "#7b8494", "decoders": "#d8702b"}


@contextlib.contextmanager
def figure(path: Path, width: float, height: float, columns: int = 1) -> Iterator[Any]:
    """A matplotlib figure in the style of the reports, written as PNG to ``path`` at the end.

    Args:
        path: written atomically.
        width, height: in inches of 110 pixels.
        columns: axes next to each other, with a common y axis.

    Yields:
        The axes, or an array of them for several columns.
    """
    from cycler import cycler
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # not pyplot: no display, no global state

    style = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#5c6472",
        "axes.labelcolor": "#5c6472",
        "xtick.color": "#5c6472",
        "ytick.color": "#171a21",
        "axes.prop_cycle": cycler(color=FAMILIES.values()),
        "grid.color": "#e1e4ea",
        "axes.axisbelow": True,
        "legend.frameon": False,
    }
    with rc_context(style):
        drawn = Figure((width, height), layout="constrained")
        yield drawn.subplots(1, columns, sharey=True)
        write_atomic(path, lambda temporary: drawn.savefig(temporary, format="png", dpi=110))


def ratio_bars(axis: Any, names: list[str], series: dict[str, list[float]], title: str) -> None:
    """Horizontal bars of time ratios around a dashed line at 1.

    Args:
        axis: of `figure`.
        names: of the rows, from the top.
        series: ratios of the rows, by name of the series; several series have a legend.
        title: of the x axis.
    """
    height = 0.76 / len(series)
    for k, (name, ratios) in enumerate(series.items()):
        shift = (k - (len(series) - 1) / 2) * height
        places = [row + shift for row in range(len(names))]
        bars = axis.barh(places, ratios, height, label=name)
        axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axis.axvline(1, color="#5c6472", lw=1, ls="--")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_xlabel(title)
    if len(series) > 1:
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(series))
