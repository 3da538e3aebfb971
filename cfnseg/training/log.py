"""The run's record: `log.jsonl`, and what a person sees while it runs."""

from __future__ import annotations

import json
import math
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric import Fabric
from rich.console import Console
from torch import Tensor

from cfnseg.errors import UserError, first_line
from cfnseg.progress import Progress
from cfnseg.storage import write_atomic
from cfnseg.streams import own_command


class Read(NamedTuple):
    """One step as the host sees it.

    Attributes:
        step: 1-based.
        loss: of the total batch.
        norm: of the gradient before clipping.
        stop: a process was asked to stop.
        names: the images that this process had.
    """

    step: int
    loss: float
    norm: float
    stop: bool
    names: list[str]


class StepRecord:
    """The last steps' values on the device. `read` is the only host synchronisation of a step.

    Args:
        fabric: the processes; values are averaged over them when they are read.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.fabric, self.reads = fabric, 0
        self.steps: list[tuple[int, list[str], Tensor]] = []

    def add(self, step: int, loss: Tensor, norm: Tensor, stop: bool, names: list[str]) -> None:
        """Keep a step; nothing waits for the device.

        Args:
            step: 1-based.
            loss, norm: 0-d tensors on the device.
            stop: this process was asked to stop.
            names: the images of this process.
        """
        asked = torch.full((), float(stop), device=loss.device)
        row = torch.stack([loss.detach().float(), norm.detach().float(), asked])
        self.steps.append((step, names, row))

    def read(self) -> list[Read]:
        """The steps since the last `read`; waits until the device has finished them."""
        if not self.steps:
            return []
        self.reads += 1
        rows = torch.stack([row for _, _, row in self.steps])
        if self.fabric.world_size > 1:  # processes must agree on the step after which they stop
            rows = self.fabric.all_reduce(rows, reduce_op="mean")
        found = [
            Read(step, loss, norm, stop > 0, names)
            for (step, names, _), (loss, norm, stop) in zip(self.steps, rows.tolist())
        ]
        self.steps = []
        return found


class RunLog:
    """Rows of `log.jsonl`, and the progress display of a run.

    Args:
        path: the file; appended to row by row.
        total: steps of the whole run.
        start, validated: steps that are done and validated. Rows of later steps are dropped first:
            a resumed run does them again.
        active: False in processes that only compute; they write and show nothing.
        clock: seconds.
    """

    def __init__(
        self,
        path: Path,
        total: int,
        start: int = 0,
        validated: int = 0,
        active: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path if active else None
        if active:
            kept = [
                r for r in read_log(path) if r["step"] <= (validated if "val_loss" in r else start)
            ]
            text = "".join(json.dumps(r) + "\n" for r in kept)
            write_atomic(path, lambda temporary: temporary.write_text(text))
        console = Console(soft_wrap=True) if active else Console(quiet=True, force_terminal=False)
        self.console, self.clock = console, clock
        self.progress = Progress("step", total, console=console, lasting=True, clock=clock)
        self.validation = 0.0  # seconds that the last validation took
        self.pace: float | None = None  # steps a second, None if unknown yet
        self.began, self.waited = clock(), 0.0

    def write(self, row: dict[str, Any]) -> None:
        """Append a row (with its ``step``); numbers that are not finite become null, as JSON has
        none."""
        if self.path is None:
            return
        clean = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()
        }
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(clean) + "\n")
        except OSError as error:
            raise UserError(
                f"{self.path} could not be written ({first_line(error)}); "
                "the last checkpoint is intact"
            ) from None

    def say(self, text: str) -> None:
        """A line for the person."""
        self.console.print(text, markup=False, highlight=False)

    def step(
        self, step: int, epoch: float, read: Read, rate: float, batch: int, validations: int
    ) -> None:
        """Show that ``step`` steps are done; a line each 10 s where there is no terminal.

        The ETA counts the validations to come and the report, each as long as the last validation.

        Args:
            step, epoch: done so far.
            read: the last step whose loss is known.
            rate: the last step's learning rate.
            batch: images a step.
            validations: how many are to come.
        """
        pace = self.pace = self.progress.mark(step)
        speed = f"  {batch * pace:.1f} images/s" if pace else ""
        text = (
            f"epoch {epoch:.2f}  loss {read.loss:.4f}  lr {rate:.2e}{speed}"
            f"  waiting {self.waiting_share:.1%}"
        )
        later = self.validation * (validations + 1)
        self.progress.show(step, text, pace, later, "" if self.validation else " + validation")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time a wait for data."""
        began = self.clock()
        yield
        self.waited += self.clock() - began

    @property
    def waiting_share(self) -> float:
        """The share of the training time, 0..1, spent in `waiting`."""
        return self.waited / max(self.clock() - self.progress.paused - self.began, 1e-9)

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Time a validation, which is no training time."""
        began = self.clock()
        with self.progress.pause():
            yield
        self.validation = self.clock() - began

    def __enter__(self) -> RunLog:
        self.began = self.clock()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the terminal as it was."""
        self.progress.__exit__(*error)


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a `log.jsonl`; none if it is missing. What a crash left at its end, of any bytes,
    is left out.

    Raises UserError for a line that is no row and has rows below it.
    """
    path = Path(path)
    rows: list[dict[str, Any]] = []
    broken = 0
    for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else [], 1):
        if not line.strip():
            continue
        row = _row(line)
        if row is None:
            broken = broken or number
        elif broken:
            raise UserError(
                f"{path}, line {broken}: expected a JSON object with a step, got something else, "
                "and rows follow. Delete the line, or restore the file"
            )
        else:
            rows.append(row)
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    """The row that a line holds, or None."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # neither JSON nor UTF-8
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return row if isinstance(step, int) and not isinstance(step, bool) else None


def environment() -> dict[str, Any]:
    """Versions, commit and machine of a run, for `config.json`."""
    import platform
    import subprocess

    import timm

    from cfnseg import __version__

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[2]), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {os.cpu_count()} cores"
    )
    return {
        "cfnseg": __version__,
        "commit": git("rev-parse", "--verify", "-q", "HEAD") or None,
        "changed_since_commit": bool(git("status", "--porcelain", "-uno")),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "command": shlex.join(own_command()),
    }
