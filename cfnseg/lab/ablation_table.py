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
COSTS = {"head_gmacs": "GMACs beyond the encoder", "step_ratio": "training step / bare encoder"}


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
        ["system", title, f"less {suite.reference} (95 % of seeds)", "head GMACs", "step / encoder"]
    ]
    over_images = f"less {suite.reference} (95 % of images)"
    counted = ["parameters", "fusion's", "GMACs", "inference / encoder", "step", "memory"]
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
        f"paired bootstrap. GMACs are of one {'x'.join(map(str, suite.size))} image; the head's are"
        " those beyond the undilated encoder. The step is forward and backward on such images, "
        "inference ends with the class map, each compared with the encoder alone; memory is what a "
        f"step adds at its peak ({devices or 'not measured'}).",
        "",
    ]
    return "\n".join(lines)


def _scores(runs: list[dict[str, Any]]) -> np.ndarray:
    return np.array([run["score"] for run in runs])


def _cost(cost: dict[str, Any] | None) -> list[str]:
    """Cells: head GMACs, step / encoder, parameters, the fusion's, GMACs, inference / encoder,
    step, memory."""
    if cost is None:
        return ["-"] * 8
    parts, peak = cost["parameters"], cost["step_peak_mib"]
    return [
        f"{cost['head_gmacs']:.3f}",
        f"{cost['step_ratio']:.2f}",
        f"{parts['total']:,}",
        f"{parts.get('fusion', 0):,}",
        f"{cost['gmacs']:.2f}",
        f"{cost['infer_ratio']:.2f}",
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
    """Dots, best system first: score with its interval over seeds, and costs.

    The axis of scores ends where the seeds' scores end: an interval of two seeds may be wide.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    metric = next(iter(results.runs.values()))[0]["metric"]
    scores = {name: 100 * _scores(runs) for name, runs in results.runs.items()}
    order = sorted(scores, key=lambda name: scores[name].mean(), reverse=metric == "miou")
    families = {name: _family(results.runs[name]) for name in order}
    ends = np.concatenate([*scores.values()])
    with figure(path, 12, 1.6 + 0.26 * len(order), columns=1 + len(COSTS)) as axes:
        for row, name in enumerate(order):
            color = FAMILIES[families[name]]
            mean, *interval = seed_difference(scores[name], np.zeros_like(scores[name]))
            axes[0].plot(interval, [row, row], color=color, alpha=0.6)
            axes[0].plot(scores[name], [row] * len(scores[name]), "|", ms=9, color=color, alpha=0.6)
            axes[0].plot(mean, row, "o", color=color)
            for axis, key in zip(axes[1:], COSTS):
                if name in results.costs:
                    axis.plot(results.costs[name][key], row, "o", color=color)
        margin = 0.05 * np.ptp(ends) + 0.1
        axes[0].set_xlim(ends.min() - margin, ends.max() + margin)
        axes[0].set_yticks(range(len(order)), order)
        axes[0].invert_yaxis()
        axes[0].set_xlabel(f"{TITLES[metric]} (%): mean, seeds, 95 % interval over seeds")
        axes[0].grid()
        for axis, (key, title) in zip(axes[1:], COSTS.items()):
            values = [cost[key] for cost in results.costs.values()] or [1]
            if max(values) > 2 * np.median(values):
                title += " (log axis)"
                axis.set_xscale("log")
                axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
                axis.xaxis.set_major_formatter("{x:g}")
                axis.xaxis.set_minor_formatter(NullFormatter())
            else:
                axis.set_xlim(0, 1.1 * max(values))
            axis.set_xlabel(title)
            axis.grid()
        for family, color in FAMILIES.items():
            if family in families.values():
                axes[0].plot([], [], "o", color=color, label=family.replace("cfn", "CFN"))
        axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(FAMILIES))


def _family(runs: list[dict[str, Any]]) -> str:
    name = runs[0]["config"]["model"]["name"]
    return "cfn" if name == "cfn" else "baselines" if name in BASELINES else "decoders"
