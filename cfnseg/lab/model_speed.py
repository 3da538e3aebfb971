"""Training step and inference of CFN and its peers over the same bare encoder: the work of tools/bench_models.py."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cfnseg.config import Config, Model, Train, to_dict
from cfnseg.errors import UserError, unknown
from cfnseg.lab.plots import plot_ratios
from cfnseg.models.build import MODELS
from cfnseg.report.text import write_json, write_text
from cfnseg.storage import write_atomic

ROW = "| {} |"


@dataclass(frozen=True)
class Case:
    """What one process measures: a model by name, (H, W) and number of images, compiled or not."""

    model: str
    size: tuple[int, int]
    batch: int
    compile: bool


def cases(models: Iterable[str], sizes: Iterable[tuple[int, int]], batches: Iterable[int], both: bool) -> list[Case]:
    """Every combination; with ``both`` each compiled as well. Raises UserError for a model that is unknown."""
    models = list(models)
    if wrong := [name for name in models if name not in MODELS]:
        raise unknown("--models", wrong[0], MODELS)
    found = [Case(name, size, batch, compiled) for size, batch, compiled, name in
             itertools.product(sizes, batches, (False, True)[: 1 + both], models)]
    if not found:
        raise UserError("nothing to measure: give at least one of --models, --sizes and --batches", code=2)
    return found


def measure(case: Case, encoder: str, classes: int, precision: str, rounds: int) -> dict[str, Any]:
    """The case with what `cfnseg.lab.cost.cost_of` says of it, measured in a process of its own; or its "error" in a line."""
    config = Config(model=Model(name=case.model, encoder=encoder, encoder_weights=None),
                    train=Train(batch=case.batch, precision=precision, compile=case.compile, channels_last=True))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "cost.json"
        job = {"config": to_dict(config), "out": str(out), "size": case.size, "classes": classes, "rounds": rounds, "parent": os.getpid()}
        done = subprocess.run([sys.executable, "-m", "cfnseg.lab.worker", json.dumps(job)], stderr=subprocess.PIPE, text=True,
                              check=False)
        if done.returncode in (130, -2):
            raise KeyboardInterrupt
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return asdict(case) | {"error": lines[-1]}
        return asdict(case) | json.loads(out.read_text())


def table_of(rows: Sequence[dict[str, Any]], encoder: str) -> str:
    """The Markdown table; each group of cases begins with the bare encoder, as its first case measured it."""
    times = ["10 to 90 %", "over encoder", "over eager", "images/s", "GiB"]
    columns = ["model", "images", "compiled", "parameters", "GMACs", "training step", *times, "inference", *times]
    lines = [ROW.format(" | ".join(columns)), "|:--|--:|" + "--:|" * (len(columns) - 2)]
    group = None
    for row in rows:
        images, compiled = "{} x {}x{}".format(row["batch"], *row["size"]), "yes" if row["compile"] else "no"
        if "error" in row:
            reason = "failed: " + row["error"].replace("|", "/")
            lines.append(ROW.format(" | ".join([row["model"], images, compiled, reason, *["-"] * (len(columns) - 4)])))
            continue
        if group != (images, compiled):
            group = (images, compiled)
            alone = [text for kind in ("step", "infer") for text in _times(row, kind, row[f"{kind}_encoder"])]
            lines.append(ROW.format(" | ".join([f"bare {encoder}", images, compiled, f"{row['parameters']['encoder']:,}", "-", *alone])))
        size = f"{row['parameters']['total']:,}", f"{row['gmacs']:.2f}"
        own = [text for kind in ("step", "infer") for text in _times(row, kind)]
        lines.append(ROW.format(" | ".join([row["model"], images, compiled, *size, *own])))
    devices = "; ".join(sorted({f"{row['device']}, {row['precision']}" for row in rows if "error" not in row})) or "no device"
    return "\n".join([*lines, "", f"{devices}. A training step is forward, loss at the image's size and backward; inference "
                      "ends with the class map of the image's size. The encoder is timed in turns with each model, and its ratios are "
                      "medians of the turns'; over eager is a compiled model's to itself without "
                      "compilation, in the same turns. GMACs are one image's; GiB are what the first batch adds to the memory in use.", ""])


def _times(row: dict[str, Any], kind: str, alone: float | None = None) -> list[str]:
    seconds = alone or row[f"{kind}_seconds"]
    shown = [f"{1000 * seconds:.0f} ms", "-", "1", "-", f"{row['batch'] / seconds:.1f}", "-"]
    if alone is None:
        low, high = row[f"{kind}_range"]
        shown[1:3] = f"{1000 * low:.0f} to {1000 * high:.0f} ms", f"{row[f'{kind}_ratio']:.2f}"
        eager, peak = row[f"{kind}_over_eager"], row[f"{kind}_peak_mib"]
        shown[3] = "-" if eager is None else f"{eager:.2f}"
        shown[5] = "-" if peak is None else f"{peak / 1024:.2f}"
    return shown


def write_results(rows: list[dict[str, Any]], encoder: str, folder: Path) -> str:
    """Write models.md, models.json and models.png; returns the table's text."""
    text = table_of(rows, encoder)
    write_text(folder / "models.md", text)
    write_json(folder / "models.json", rows)
    bars = [
        (
            "{}, {} x {}x{}{}".format(row["model"], row["batch"], *row["size"], ", compiled" * row["compile"]),
            {"training step": row["step_ratio"], "inference": row["infer_ratio"]},
        )
        for row in rows
        if "error" not in row
    ]
    if bars:
        write_atomic(folder / "models.png", lambda temporary: plot_ratios(temporary, bars, "time over the bare encoder's"))
    return text
