"""The ablation as a Markdown table of five columns, a folded one with the rest, and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.config import Model
from cfnseg.lab.ablation import Results, Suite
from cfnseg.lab.plots import Dot, plot_systems
from cfnseg.metrics.uncertainty import paired_difference, seed_difference
from cfnseg.models.baselines import BASELINES
from cfnseg.report.text import table, write_text
from cfnseg.storage import write_atomic

TITLES = {"miou": "mIoU", "top1_error": "top-1 error"}
SECOND = {"miou": ("boundary_miou", "boundary mIoU"), "top1_error": ("top5_error", "top-5 error")}


def write_table(suite: Suite, results: Results, folder: Path) -> str:
    """Write table.md and plot.png of what is finished; returns the table's text."""
    text = table_of(suite, results)
    write_text(folder / "table.md", text)
    write_atomic(folder / "plot.png", lambda temporary: _plot(temporary, suite, results))
    return text


def table_of(suite: Suite, results: Results) -> str:
    """Scores in percent: the mean over seeds with Student's t interval, and paired differences.

    Systems stand in the order of the suite. The first table has score, parameters and cost; the
    folded one has differences to the reference, the second score and what was measured besides.
    """
    first = next(iter(results.runs.values()))[0]
    second, title = SECOND[first["metric"]]
    short, rest = [], []
    for name, runs in results.runs.items():
        label = f"**{name}**" if name == suite.reference else name
        cost = results.costs.get(name)
        short.append([label, _with_interval(_scores(runs)), *_main_cost(cost)])
        scores = _scores(runs)
        deviation = f"{scores.std(ddof=1):.1f}" if len(scores) > 1 else "-"
        differences = _difference(runs, results.runs.get(suite.reference, [])) if name != suite.reference else ("-", "-")
        mean = 100 * np.mean([run["scores"][second] for run in runs])
        rest.append([label, str(len(scores)), deviation, *differences, f"{mean:.1f}", *_other_cost(cost)])
    columns = ["system", f"{TITLES[first['metric']]} (95 % of seeds)", "parameters", "GMACs", "step over encoder"]
    others = ["system", "seeds", "deviation", f"less {suite.reference} (95 % of images)", "95 % of seeds", title]
    others += ["encoder's parameters", "fusion's", "step", "memory"]
    size = "x".join(map(str, suite.size))
    devices = ", ".join(sorted({cost["device"] for cost in results.costs.values()}))
    note = (
        f"Percent; {len(first['counts'])} images scored. Intervals over seeds are Student's t. A difference is over the "
        "seeds that both systems have; its interval over images is a paired bootstrap. GMACs are of one "
        f"{size} image. Step and memory are of a training step on such images ({devices or 'not measured'}); the step's "
        "ratio is to forward and backward of the encoder alone."
    )
    folded = ["<details><summary>Differences, second score, memory</summary>", "", *table(others, rest), "", "</details>"]
    return "\n".join([f"# {suite.name}", "", *table(columns, short), "", note, "", *folded, ""])


def _scores(runs: list[dict[str, Any]]) -> np.ndarray:
    return 100 * np.array([run["score"] for run in runs])


def _interval(scores: np.ndarray) -> tuple[float, float, float]:
    """Mean and the ends of its interval over seeds; nan for the ends of one seed."""
    return seed_difference(scores, np.zeros(len(scores)))


def _with_interval(scores: np.ndarray) -> str:
    mean, low, high = _interval(scores)
    return f"{mean:.1f}" if np.isnan(low) else f"{mean:.1f} ({low:.1f} to {high:.1f})"


def _main_cost(cost: dict[str, Any] | None) -> list[str]:
    if cost is None:
        return ["-"] * 3
    return [f"{cost['parameters']['total']:,}", f"{cost['gmacs']:.2f}", f"{cost['step_ratio']:.2f}"]


def _other_cost(cost: dict[str, Any] | None) -> list[str]:
    if cost is None:
        return ["-"] * 4
    parts, peak = cost["parameters"], cost["step_peak_mib"]
    memory = "-" if peak is None else f"{peak:,.0f} MiB"
    return [f"{parts['encoder']:,}", f"{parts.get('fusion', 0):,}", f"{1000 * cost['step_seconds']:.0f} ms", memory]


def _difference(runs: list[dict[str, Any]], reference: list[dict[str, Any]]) -> tuple[str, str]:
    """Over the seeds that both have: a seed fixes the order of images, so it is part of the pairing."""
    ours, theirs = ({run["config"]["train"]["seed"]: run for run in part} for part in (runs, reference))
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        return "-", "-"
    value, low, high, _ = paired_difference(*([np.array(side[s]["counts"]) for s in both] for side in (ours, theirs)))
    _, least, most = seed_difference(*([side[s]["score"] for s in both] for side in (ours, theirs)))
    over_seeds = "-" if np.isnan(least) else f"{100 * least:+.1f} to {100 * most:+.1f}"
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})", over_seeds


def _family(model: Model) -> str:
    return "CFN" if model.name == "cfn" else "baseline" if model.name in BASELINES else "decoder"


def _plot(path: Path, suite: Suite, results: Results) -> None:
    dots = []
    for name, runs in results.runs.items():
        mean, low, high = _interval(_scores(runs))
        low, high = (mean, mean) if np.isnan(low) else (low, high)
        cost = results.costs.get(name)
        costs = (cost["gmacs"], cost["step_ratio"]) if cost else None
        dots.append(Dot(name, _family(suite.systems[name].model), mean, low, high, costs))
    metric = TITLES[next(iter(results.runs.values()))[0]["metric"]]
    plot_systems(path, dots, f"{metric} (%), bars: 95 % of seeds", ["GMACs of an image", "training step over the encoder's"])
