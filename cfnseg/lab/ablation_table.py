"""The comparison of a suite as Markdown tables and as a chart of scores and costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.lab.ablation import Results, Suite
from cfnseg.lab.plots import FAMILIES, figure
from cfnseg.metrics.uncertainty import paired_difference, seed_difference
from cfnseg.models.baselines import BASELINES
from cfnseg.report.text import ends, percent, signed, table, write_text

TITLES = {"miou": "mIoU", "top1_error": "top-1 error"}
SECOND = {"miou": ("boundary_miou", "boundary mIoU"), "top1_error": ("top5_error", "top-5 error")}
COSTS = {"gmacs": "GMACs of an image", "step_ratio": "training step / bare encoder"}


def write_table(suite: Suite, results: Results, folder: Path) -> str:
    """Write table.md and plot.png of the finished runs; returns the table's text."""
    text = table_of(suite, results)
    write_text(folder / "table.md", text)
    _plot(folder / "plot.png", results)
    return text


def table_of(suite: Suite, results: Results) -> str:
    """Five columns, and the rest in ``<details>``; scores in percent, differences in points."""
    first = next(iter(results.runs.values()))[0]
    title, (second, second_title) = TITLES[first["metric"]], SECOND[first["metric"]]
    main = [
        ["system", title, f"less {suite.reference} (95 % of seeds)", "parameters", "step / encoder"]
    ]
    over_images = f"less {suite.reference} (95 % of images)"
    counted = ["encoder parameters", "fusion parameters", "GMACs", "step", "memory"]
    rest = [["system", "seeds", "deviation over seeds", over_images, second_title, *counted]]
    for name, runs in results.runs.items():
        scores, cost = _scores(runs), _cost(results.costs.get(name))
        over_images, over_seeds = _difference(runs, results.runs.get(suite.reference, []))
        if name == suite.reference:
            over_images = over_seeds = "-"
        shown = f"**{name}**" if name == suite.reference else name
        deviation = percent(scores.std(ddof=1) if len(scores) > 1 else None)
        other = percent(float(np.mean([run["scores"][second] for run in runs])))
        main.append([shown, percent(scores.mean()), over_seeds, cost[0], cost[1]])
        rest.append([shown, str(len(scores)), deviation, over_images, other, *cost[2:]])
    devices = ", ".join(sorted({cost["device"] for cost in results.costs.values()}))
    lines = [
        f"# {suite.name}",
        "",
        *table(main[0], main[1:]),
        "",
        "<details><summary>Seeds, images and cost</summary>",
        "",
        *table(rest[0], rest[1:]),
        "",
        "</details>",
        "",
        f"{len(first['counts'])} images scored. A difference is over the seeds that both systems "
        "have. Its interval over seeds is Student's t of the seeds' differences, over images a "
        f"paired bootstrap. GMACs are of one {'x'.join(map(str, suite.size))} image. The step is "
        "forward and backward on such images, compared with the encoder alone; memory is what it "
        f"adds at its peak ({devices or 'not measured'}).",
        "",
    ]
    return "\n".join(lines)


def _scores(runs: list[dict[str, Any]]) -> np.ndarray:
    return np.array([run["score"] for run in runs])


def _cost(cost: dict[str, Any] | None) -> list[str]:
    """Cells: parameters, step / encoder, parameters of encoder and fusion, GMACs, step, memory."""
    if cost is None:
        return ["-"] * 7
    parts, peak = cost["parameters"], cost["step_peak_mib"]
    return [
        f"{parts['total']:,}",
        f"{cost['step_ratio']:.2f}",
        f"{parts['encoder']:,}",
        f"{parts.get('fusion', 0):,}",
        f"{cost['gmacs']:.2f}",
        f"{1000 * cost['step_seconds']:.0f} ms",
        "-" if peak is None else f"{peak:,.0f} MiB",
    ]


def _difference(runs: list[dict[str, Any]], reference: list[dict[str, Any]]) -> tuple[str, str]:
    """Cells of the difference with its interval over images, and over seeds.

    A seed decides the order of the images, so runs of the same seed are paired.
    """
    sides = [{r["config"]["train"]["seed"]: r for r in part} for part in (runs, reference)]
    both = sorted(sides[0].keys() & sides[1].keys())
    if not both:
        return "-", "-"
    counts = ([np.array(side[seed]["counts"]) for seed in both] for side in sides)
    value, low, high, _ = paired_difference(*counts)
    mean, *over_seeds = seed_difference(*([side[s]["score"] for s in both] for side in sides))
    seeds = "" if np.isnan(over_seeds[0]) else f" ({ends(over_seeds, sign=True)})"
    return f"{signed(value)} ({ends([low, high], sign=True)})", signed(mean) + seeds


def _plot(path: Path, results: Results) -> None:
    """Dots in the order of their scores: score, with its interval over seeds, and costs.

    The score's axis ends where the seeds' scores end, as the interval of two seeds may be wide.
    """
    from scipy import stats

    metric = next(iter(results.runs.values()))[0]["metric"]
    order = sorted(results.runs, key=lambda name: _scores(results.runs[name]).mean())
    if metric == "miou":
        order.reverse()
    families = [_family(results.runs[name]) for name in order]
    with figure(path, 12, 1.6 + 0.26 * len(order), columns=1 + len(COSTS)) as axes:
        for row, (name, family) in enumerate(zip(order, families)):
            scores, style = 100 * _scores(results.runs[name]), {"color": FAMILIES[family]}
            axes[0].plot(scores, [row] * len(scores), "|", ms=9, alpha=0.6, **style)
            axes[0].plot(scores.mean(), row, "o", **style)
            for axis, key in zip(axes[1:], COSTS):
                if name in results.costs:
                    axis.plot(results.costs[name][key], row, "o", **style)
        limits = axes[0].get_xlim()
        for row, (name, family) in enumerate(zip(order, families)):
            scores = 100 * _scores(results.runs[name])
            if len(scores) > 1:
                interval = stats.t.interval(0.95, len(scores) - 1, scores.mean(), stats.sem(scores))
                axes[0].plot(interval, [row, row], color=FAMILIES[family], alpha=0.6)
        axes[0].set_xlim(limits)
        axes[0].set_yticks(range(len(order)), order)
        axes[0].invert_yaxis()
        axes[0].set_xlabel(f"{TITLES[metric]} (%): mean, seeds, 95 % interval over seeds")
        for axis, (key, title) in zip(axes[1:], COSTS.items()):
            values = [cost[key] for cost in results.costs.values()]
            if values and max(values) > 2 * np.median(values):
                axis.set_xscale("log")
                title += " (log axis)"
            axis.set_xlabel(title)
        for axis in axes:
            axis.grid()
        for family, color in FAMILIES.items():
            if family in families:
                axes[0].plot([], [], "o", color=color, label=family)
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(FAMILIES))


def _family(runs: list[dict[str, Any]]) -> str:
    name = runs[0]["config"]["model"]["name"]
    return "cfn" if name == "cfn" else "baselines" if name in BASELINES else "decoders"
