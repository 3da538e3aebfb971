"""The comparison as a Markdown table and a plot of score against cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.benchmark.suite import Suite
from cfnseg.metrics.paired import paired_difference
from cfnseg.storage import write_atomic

TITLES = {"miou": "mIoU", "top1_error": "top-1 error"}


def write_table(suite: Suite, results: dict[str, list[dict]], folder: Path) -> str:
    """Write table.md and plot.png for the results of `cfnseg.benchmark.runs.run_suite`; returns the table's text."""
    names = [name for name in results if name != "cost"]
    costs = dict(zip(names, results["cost"]))
    metric = results[names[0]][0]["metric"]
    batch = suite.systems[names[0]].train.batch
    text = table_of(suite, {name: results[name] for name in names}, costs, metric, batch)
    write_atomic(folder / "table.md", lambda beside: beside.write_text(text, encoding="utf-8"))
    write_atomic(folder / "plot.png", lambda beside: _plot(beside, {n: results[n] for n in names}, costs, metric))
    return text


def table_of(suite: Suite, runs: dict[str, list[dict]], costs: dict[str, dict], metric: str, batch: int) -> str:
    """Scores in points (0..100): mean and sample standard deviation over seeds, and the paired difference to the reference."""
    seeds = len(next(iter(runs.values())))
    reference = runs.get(suite.reference)
    pixel = metric == "miou"
    columns = ["system", TITLES[metric], "deviation over seeds", f"less {suite.reference} (95 % of images)"]
    columns += ["boundary mIoU"] * pixel + ["parameters", "of these encoder", "fusion", "GMACs", "step over encoder", "step", "memory"]
    lines = [f"| {' | '.join(columns)} |", "|:--|" + "--:|" * (len(columns) - 1)]
    for name, results in runs.items():
        scores = 100 * np.array([r["score"] for r in results])
        deviation = f"{scores.std(ddof=1):.2f}" if len(scores) > 1 else "-"
        cost, parts = costs[name], costs[name]["parameters"]
        row = [f"**{name}**" if name == suite.reference else name, f"{scores.mean():.2f}", deviation,
               _difference(results, reference) if reference and name != suite.reference else "-"]
        row += [f"{100 * np.mean([r['scores']['boundary_miou'] for r in results]):.2f}"] * pixel
        row += [f"{parts['total']:,}", f"{parts['encoder']:,}", f"{parts.get('fusion', 0):,}", f"{cost['gmacs']:.2f}",
                f"{cost['step_ratio']:.2f}", f"{1000 * cost['step_seconds']:.0f} ms", f"{cost['peak_mib']:,.0f} MiB"]
        lines.append(f"| {' | '.join(row)} |")
    images = len(next(iter(runs.values()))[0]["counts"])
    size = "x".join(map(str, suite.size))
    device = next(iter(costs.values()))["device"]
    note = (f"{seeds} seed{'s' if seeds > 1 else ''}, {images} images scored. The interval is a paired bootstrap over images of the "
            f"seeds' mean; seeds vary beside it. Cost: GMACs of one {size} image; training step and its memory with {batch} such "
            f"images on {device}, over forward and backward of the encoder alone.")
    return "\n".join([f"# {suite.name}", "", *lines, "", note, ""])


def _difference(results: list[dict[str, Any]], reference: list[dict[str, Any]]) -> str:
    ours, theirs = ([np.array(r["counts"]) for r in runs] for runs in (results, reference))
    value, low, high = (100 * v for v in paired_difference(ours, theirs))
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def _plot(path: Path, runs: dict[str, list[dict]], costs: dict[str, dict], metric: str) -> None:
    """Score with its deviation over seeds against multiply-accumulates and against the training step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 5), sharey=True, layout="constrained")
    for axis, key, title in zip(axes, ("gmacs", "step_ratio"), ("GMACs of an image", "training step over the encoder's")):
        points = []
        for name, results in runs.items():
            scores = 100 * np.array([r["score"] for r in results])
            spread = scores.std(ddof=1) if len(scores) > 1 else 0
            axis.errorbar(costs[name][key], scores.mean(), spread, fmt="o", capsize=3)
            points.append((costs[name][key], scores.mean(), name))
        _label(axis, points)
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"{TITLES[metric]} (%), bars: deviation over seeds")
    figure.savefig(path, format="png", dpi=110)
    plt.close(figure)


def _label(axis, points: list[tuple[float, float, str]]) -> None:
    """Names beside their points, pushed up where they would cover each other."""
    low, high = axis.get_ylim()
    gap, last = (high - low) / 26, -np.inf
    left, right = axis.get_xlim()
    axis.set_xlim(left, right + 0.25 * (right - left))
    for x, y, name in sorted(points, key=lambda p: p[1]):
        last = max(y, last + gap)
        axis.annotate(name, (x, y), (x + 0.02 * (right - left), last), fontsize=8, va="center",
                      arrowprops={"arrowstyle": "-", "alpha": 0.25, "shrinkB": 0})
