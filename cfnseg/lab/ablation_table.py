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
COSTS = {
    "head_gmacs": "GMACs beyond the encoder (log axis)",
    "step_ratio": "training step / bare encoder",
}


def write_table(suite: Suite, results: Results, folder: Path) -> str:
    """Write table.md, plot.png (scores) and, once costs are measured, costs.png of the finished
    runs; returns the table's text."""
    text = table_of(suite, results)
    write_text(folder / "table.md", text)
    _plot_scores(folder / "plot.png", results)
    if results.costs:
        _plot_costs(folder / "costs.png", results, suite.reference)
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


def _plot_scores(path: Path, results: Results) -> None:
    """Dots, best system first: mean, seeds and the interval over seeds.

    The axis ends where the seeds' scores end: an interval of two seeds may be wide.
    """
    metric, scores, families = _drawn(results)
    order = sorted(scores, key=lambda name: scores[name].mean(), reverse=metric == "miou")
    ends = np.concatenate([*scores.values()])
    with figure(path, 8, 1.4 + 0.24 * len(order)) as axis:
        for row, name in enumerate(order):
            color = FAMILIES[families[name]]
            mean, *interval = seed_difference(scores[name], np.zeros_like(scores[name]))
            axis.plot(interval, [row, row], color=color, alpha=0.6)
            axis.plot(scores[name], [row] * len(scores[name]), "|", ms=9, color=color, alpha=0.6)
            axis.plot(mean, row, "o", color=color)
        margin = 0.05 * np.ptp(ends) + 0.1
        axis.set_xlim(ends.min() - margin, ends.max() + margin)
        axis.set_yticks(range(len(order)), order)
        axis.invert_yaxis()
        axis.set_xlabel(f"{TITLES[metric]} (%): mean, seeds, 95 % interval over seeds")
        axis.grid()
        _legend(axis, families)


def _plot_costs(path: Path, results: Results, reference: str) -> None:
    """The mean score of each system against its costs; CFNs other than the reference unnamed."""
    metric, scores, families = _drawn(results)
    names = [name for name in scores if name in results.costs]
    with figure(path, 11, 4.6, columns=len(COSTS)) as axes:
        for axis, (key, title) in zip(axes, COSTS.items()):
            for name in names:
                x, y = max(results.costs[name][key], 1e-3), scores[name].mean()
                own = name == reference
                color = FAMILIES[families[name]]
                axis.plot(x, y, "o", color=color, ms=9 if own else 6, alpha=1 if own else 0.7)
                if own or families[name] != "cfn":
                    style = {"weight": "bold"} if own else {}
                    axis.annotate(
                        name, (x, y), (6, -3), textcoords="offset points", fontsize=8, **style
                    )
            if key == "head_gmacs":
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter("{x:g}")
            axis.margins(x=0.15)
            axis.set_xlabel(title)
            axis.grid()
        axes[0].set_ylabel(f"{TITLES[metric]} (%), mean of the seeds")
        if metric != "miou":
            axes[0].invert_yaxis()
        _legend(axes[0], families)


def _drawn(results: Results) -> tuple[str, dict[str, np.ndarray], dict[str, str]]:
    """The metric; by system the seeds' scores in percent, and its family."""
    metric = next(iter(results.runs.values()))[0]["metric"]
    scores = {name: 100 * _scores(runs) for name, runs in results.runs.items()}
    return metric, scores, {name: _family(runs) for name, runs in results.runs.items()}


def _legend(axis: Any, families: dict[str, str]) -> None:
    for family, color in FAMILIES.items():
        if family in families.values():
            axis.plot([], [], "o", color=color, label=family.replace("cfn", "CFN"))
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(FAMILIES))


def _family(runs: list[dict[str, Any]]) -> str:
    name = runs[0]["config"]["model"]["name"]
    return "cfn" if name == "cfn" else "baselines" if name in BASELINES else "decoders"
