"""The comparison as a Markdown table and a plot of score against cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.benchmark.runs import Results
from cfnseg.benchmark.suite import Suite
from cfnseg.metrics.uncertainty import paired_difference, seed_difference
from cfnseg.storage import write_atomic

TITLES = {"miou": "mIoU", "top1_error": "top-1 error"}
SECOND = {"miou": ("boundary_miou", "boundary mIoU"), "top1_error": ("top5_error", "top-5 error")}  # beside the headline


def write_table(suite: Suite, results: Results, folder: Path) -> str:
    """Write table.md and plot.png of what is finished; returns the table's text."""
    text = table_of(suite, results)
    write_atomic(folder / "table.md", lambda beside: beside.write_text(text, encoding="utf-8"))
    write_atomic(folder / "plot.png", lambda beside: _plot(beside, results))
    return text


def table_of(suite: Suite, results: Results) -> str:
    """Scores in points (0..100): mean and sample standard deviation over seeds, and the paired difference to the reference."""
    first = next(iter(results.runs.values()))[0]
    second, title = SECOND[first["metric"]]
    columns = ["system", TITLES[first["metric"]], "deviation over seeds", "seeds", f"less {suite.reference} (95 % of images)"]
    columns += ["95 % of seeds", title, "parameters", "of these encoder", "fusion", "GMACs", "step over encoder", "step", "memory"]
    lines = [f"| {' | '.join(columns)} |", "|:--|" + "--:|" * (len(columns) - 1)]
    for name, runs in results.runs.items():
        scores = _scores(runs)
        row = [f"**{name}**" if name == suite.reference else name, f"{scores.mean():.2f}",
               f"{scores.std(ddof=1):.2f}" if len(scores) > 1 else "-", str(len(scores)),
               *(_difference(runs, results.runs.get(suite.reference, [])) if name != suite.reference else ("-", "-"))]
        row.append(f"{100 * np.mean([r['scores'][second] for r in runs]):.2f}")
        lines.append(f"| {' | '.join(row + _cost(results.costs.get(name)))} |")
    size = "x".join(map(str, suite.size))
    devices = ", ".join(sorted({c["device"] for c in results.costs.values()}))
    note = (f"{len(first['counts'])} images scored. The difference is over the seeds that both have; its first interval is a paired "
            "bootstrap over images, its second Student's t over the seeds' differences. "
            f"Cost: GMACs of one {size} image; training step on such images and what it adds to peak memory "
            f"({devices or 'not measured'}), over forward and backward of the encoder alone.")
    return "\n".join([f"# {suite.name}", "", *lines, "", note, ""])


def _scores(runs: list[dict[str, Any]]) -> np.ndarray:
    return 100 * np.array([r["score"] for r in runs])


def _cost(cost: dict[str, Any] | None) -> list[str]:
    if cost is None:
        return ["-"] * 7
    parts = cost["parameters"]
    peak = cost["step_peak_mib"]
    return [f"{parts['total']:,}", f"{parts['encoder']:,}", f"{parts.get('fusion', 0):,}", f"{cost['gmacs']:.2f}",
            f"{cost['step_ratio']:.2f}", f"{1000 * cost['step_seconds']:.0f} ms", "-" if peak is None else f"{peak:,.0f} MiB"]


def _difference(runs: list[dict[str, Any]], reference: list[dict[str, Any]]) -> tuple[str, str]:
    """Over the seeds that both have: a seed fixes the order of images, so it is part of the pairing."""
    ours, theirs = ({r["config"]["train"]["seed"]: r for r in part} for part in (runs, reference))
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        return "-", "-"
    value, low, high, _ = paired_difference(*([np.array(side[s]["counts"]) for s in both] for side in (ours, theirs)))
    _, least, most = seed_difference(*([side[s]["score"] for s in both] for side in (ours, theirs)))
    over_seeds = "-" if np.isnan(least) else f"{100 * least:+.2f} to {100 * most:+.2f}"
    return f"{100 * value:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})", over_seeds


def _plot(path: Path, results: Results) -> None:
    """Score with its deviation over seeds against multiply-accumulates and against the training step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 6), sharey=True, layout="constrained")
    for axis, key, title in zip(axes, ("gmacs", "step_ratio"), ("GMACs of an image", "training step over the encoder's")):
        points = []
        for name, cost in results.costs.items():
            if name in results.runs:
                scores = _scores(results.runs[name])
                axis.errorbar(cost[key], scores.mean(), scores.std(ddof=1) if len(scores) > 1 else 0, fmt="o", capsize=3)
                points.append((cost[key], scores.mean(), name))
        _label(axis, points)
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
    metric = next(iter(results.runs.values()))[0]["metric"]
    axes[0].set_ylabel(f"{TITLES[metric]} (%), bars: deviation over seeds")
    figure.savefig(path, format="png", dpi=110)
    plt.close(figure)


def _label(axis, points: list[tuple[float, float, str]]) -> None:
    """Names beside their points, pushed up where they would cover each other."""
    low, high = axis.get_ylim()
    left, right = axis.get_xlim()
    gap, reach = (high - low) / 26, 0.35 * (right - left)  # the height and width of a name
    axis.set_xlim(left, right + 0.25 * (right - left))
    placed: list[tuple[float, float]] = []
    for x, y, name in sorted(points, key=lambda p: p[1]):
        at = max([y, *(other + gap for near, other in placed if abs(near - x) < reach)])
        placed.append((x, at))
        axis.annotate(name, (x, y), (x + 0.02 * (right - left), at), fontsize=8, va="center",
                      arrowprops={"arrowstyle": "-", "alpha": 0.25, "shrinkB": 0})
    axis.set_ylim(low, max([high, *(at + gap for _, at in placed)]))
