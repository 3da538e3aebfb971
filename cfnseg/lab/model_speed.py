"""Training step and inference of CFN, baselines and decoders over the same bare encoder."""

from __future__ import annotations

import itertools
import json
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cfnseg.config import Config, Model, Train
from cfnseg.errors import UserError, unknown
from cfnseg.lab.plots import figure, ratio_bars
from cfnseg.lab.worker import command
from cfnseg.models.build import MODELS
from cfnseg.report.text import table, write_text

KINDS = {"step": "training step", "infer": "inference"}


@dataclass(frozen=True)
class Case:
    """What one process measures: model name, (H, W) and number of images, compiled or not."""

    model: str
    size: tuple[int, int]
    batch: int
    compile: bool


def cases(
    models: Sequence[str],
    sizes: Iterable[tuple[int, int]],
    batches: Iterable[int],
    both: bool,
) -> list[Case]:
    """All combinations; with ``both`` each compiled as well. UserError for an unknown model."""
    if wrong := [name for name in models if name not in MODELS]:
        raise unknown("--models", wrong[0], MODELS)
    ways = (False, True) if both else (False,)
    found = [
        Case(name, size, batch, compiled)
        for size, batch, compiled, name in itertools.product(sizes, batches, ways, models)
    ]
    if not found:
        raise UserError(
            "nothing to measure: give at least one of --models, --sizes and --batches", code=2
        )
    return found


def measure(case: Case, encoder: str, classes: int, precision: str, rounds: int) -> dict[str, Any]:
    """The case and its `cfnseg.lab.cost.cost_of`, from its own process; or "error", one line."""
    config = Config(
        model=Model(name=case.model, encoder=encoder, encoder_weights=None),
        train=Train(
            batch=case.batch, precision=precision, compile=case.compile, channels_last=True
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "cost.json"
        job = command(config, out, case.size, classes, rounds)
        done = subprocess.run(job, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode in (130, -2):
            raise KeyboardInterrupt
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return asdict(case) | {"error": lines[-1]}
        return asdict(case) | json.loads(out.read_text())


def table_of(rows: Sequence[dict[str, Any]], encoder: str) -> str:
    """Markdown table; a group of cases begins with the bare encoder as its first case timed it."""
    times = ["10 to 90 %", "/ encoder", "/ eager", "images/s", "GiB"]
    columns = ["model", "images", "compiled", "parameters", "GMACs", "training step", *times]
    columns += ["inference", *times]
    cells, groups = [], set()
    for row in rows:
        images = "{} x {}x{}".format(row["batch"], *row["size"])
        compiled = "yes" if row["compile"] else "no"
        start = [images, compiled]
        if "error" in row:
            reason = "failed: " + row["error"].replace("|", "/")
            cells.append([row["model"], *start, reason, *["-"] * (len(columns) - 4)])
            continue
        parts = row["parameters"]
        if (images, compiled) not in groups:
            groups.add((images, compiled))
            bare = [text for kind in KINDS for text in _encoder_times(row, kind)]
            cells.append([f"bare {encoder}", *start, f"{parts['encoder']:,}", "-", *bare])
        own = [text for kind in KINDS for text in _times(row, kind)]
        cells.append([row["model"], *start, f"{parts['total']:,}", f"{row['gmacs']:.2f}", *own])
    devices = {f"{row['device']}, {row['precision']}" for row in rows if "error" not in row}
    note = (
        f"{'; '.join(sorted(devices)) or 'no device'}. A training step is forward, loss at the "
        "image's size and backward; inference ends with the class map of the image's size. Models "
        "and encoder run interleaved; ratios are medians of the rounds' ratios, / eager to the "
        "same model without compilation. GMACs are of one image; GiB is what a batch adds to the "
        "memory in use."
    )
    return "\n".join([*table(columns, cells), "", note, ""])


def _encoder_times(row: dict[str, Any], kind: str) -> list[str]:
    seconds = row[f"{kind}_encoder"]
    return [f"{1000 * seconds:.0f} ms", "-", "1", "-", f"{row['batch'] / seconds:.1f}", "-"]


def _times(row: dict[str, Any], kind: str) -> list[str]:
    names = ("seconds", "range", "ratio", "over_eager", "peak_mib")
    seconds, (low, high), ratio, eager, peak = (row[f"{kind}_{name}"] for name in names)
    return [
        f"{1000 * seconds:.0f} ms",
        f"{1000 * low:.0f} to {1000 * high:.0f} ms",
        f"{ratio:.2f}",
        "-" if eager is None else f"{eager:.2f}",
        f"{row['batch'] / seconds:.1f}",
        "-" if peak is None else f"{peak / 1024:.2f}",
    ]


def write_results(rows: list[dict[str, Any]], encoder: str, folder: Path) -> str:
    """Write models.md, models.json and models.png; returns the table's text."""
    text = table_of(rows, encoder)
    write_text(folder / "models.md", text)
    write_text(folder / "models.json", json.dumps(rows, indent=1))
    if shown := [row for row in rows if "error" not in row]:
        names = [
            "{}, {} x {}x{}{}".format(
                row["model"], row["batch"], *row["size"], ", compiled" * row["compile"]
            )
            for row in shown
        ]
        series = {title: [row[f"{kind}_ratio"] for row in shown] for kind, title in KINDS.items()}
        with figure(folder / "models.png", 9, 1.5 + 0.45 * len(shown)) as axis:
            ratio_bars(axis, names, series, "time / bare encoder (dashed)")
    return text
