"""Running a suite of systems: each system and seed once, by as many processes as are started.

A result is a file, so an existing file is a finished run. A run belongs to the process that holds
the lock on its file. The operating system frees the lock when the process and its worker are gone,
however they die; the next process resumes from the last checkpoint.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cfnseg.config import SECTIONS, Config
from cfnseg.config_values import before, to_dict
from cfnseg.errors import Stopped, UserError, first_line, unknown
from cfnseg.lab.worker import command
from cfnseg.shipped import load_module

# settings that change no result
IGNORED = {
    "data.root",
    "data.workers",
    "data.download",
    "train.seed",
    "train.accelerator",
    "train.save_every",
    "train.pictures",
}


@dataclass(frozen=True)
class Suite:
    """What `cfnseg bench ablation` compares: configs that differ in the compared settings alone.

    Attributes:
        systems: config by the system's name; names are file names as well.
        reference: the system that the others are tested against.
        size: (H, W) of the images that cost is measured with.
        classes: C of the data set.
        name: the suite's name; its folder is runs/<name>.
    """

    systems: dict[str, Config]
    reference: str
    size: tuple[int, int]
    classes: int
    name: str = ""

    def run(self, system: str, seed: int, folder: Path, root: str = "") -> Config:
        """The config of one run in ``folder``; ``root`` "" = the config's data.root."""
        config = self.systems[system]
        return replace(
            config,
            name=f"{system}-s{seed}",
            runs=str(folder),
            data=replace(config.data, root=root or config.data.root),
            train=replace(config.train, seed=seed),
        )


@dataclass(frozen=True)
class Results:
    """Results of a suite by system.

    Attributes:
        runs: finished runs in the order of their seeds, see `cfnseg.lab.worker.score_of`.
        costs: see `cfnseg.lab.cost.cost_of`; an unmeasured system is missing.
    """

    runs: dict[str, list[dict[str, Any]]]
    costs: dict[str, dict[str, Any]]


def sharing(threads: int, gpus: int) -> str:
    """How to start more processes of this command, "" where one has the whole machine's best.

    Args:
        threads: that torch computes with in this process.
        gpus: that this process sees.
    """
    if gpus > 1:
        return (
            f"this process trains on one of {gpus} GPUs: start the command once for each, with "
            f"CUDA_VISIBLE_DEVICES=0 to {gpus - 1}"
        )
    if gpus or threads == 1:
        return ""
    return (
        f"{threads} cores: start the command {threads} times with OMP_NUM_THREADS=1. Processes "
        "that share the runs finish sooner than one process on all cores"
    )


def load_suite(path: str | Path) -> Suite:
    """The ``suite`` of a config file, named after the file. Raises UserError if there is none."""
    suite = getattr(load_module(path), "suite", None)
    if not isinstance(suite, Suite):
        raise UserError(f"{path} defines no `suite = cfnseg.lab.ablation.Suite(...)`", code=2)
    if suite.reference not in suite.systems:
        known = ", ".join(suite.systems)
        raise UserError(
            f"{path}: the reference {suite.reference!r} is none of its systems {known}", code=2
        )
    return suite if suite.name else replace(suite, name=Path(path).stem)


def run_suite(
    suite: Suite, folder: Path, seeds: int, root: str = "", only: list[str] | None = None
) -> Results:
    """Train, score and measure what has no result yet.

    Args:
        suite: what is compared.
        folder: where runs and results live.
        seeds: 0 to seeds - 1 of each system; the first seed of all systems comes first.
        root: the data set's folder, "" = as in the configs.
        only: these systems, None = all.

    Raises:
        UserError: an unknown system; a run that fails; a result of other settings.
    """
    names = _names(suite, seeds, only)
    failed: list[str] = []
    trainings: list[tuple[str, int | None]] = [(name, s) for s in range(seeds) for name in names]
    costs: list[tuple[str, int | None]] = [(name, None) for name in names]
    for waiting in (trainings, costs):  # costs come when no training of the suite disturbs them
        while waiting:
            left = [job for job in waiting if not _done(suite, *job, folder, root, failed)]
            if left and len(left) == len(waiting):
                time.sleep(5)  # other processes do the rest
            waiting = left
    if failed:
        raise UserError(
            f"{', '.join(failed)} failed, see above; finished results are kept, --table-only makes "
            "a table of them"
        )
    return finished(suite, folder, seeds, names)


def finished(suite: Suite, folder: Path, seeds: int, only: list[str] | None = None) -> Results:
    """The existing results, some seeds may be missing. Raises UserError as `run_suite`."""
    runs, costs = {}, {}
    for name in _names(suite, seeds, only):
        paths = [_path(folder, name, seed) for seed in range(seeds)]
        found = [_read(suite, name, s, folder) for s, path in enumerate(paths) if path.exists()]
        if found:
            runs[name] = found
        if _path(folder, name, None).exists():
            costs[name] = _read(suite, name, None, folder)
    if not runs:
        raise UserError(f"no result of {suite.name} in {folder / 'results'} yet")
    return Results(runs, costs)


def _names(suite: Suite, seeds: int, only: list[str] | None) -> list[str]:
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: expected 1 or more", code=2)
    if wrong := [name for name in only or () if name not in suite.systems]:
        raise unknown("--only", wrong[0], suite.systems)
    return only or list(suite.systems)


def _path(folder: Path, name: str, seed: int | None) -> Path:
    kind = "cost" if seed is None else f"s{seed}"
    return folder / "results" / f"{name}-{kind}.json"


def _read(suite: Suite, name: str, seed: int | None, folder: Path) -> dict[str, Any]:
    path = _path(folder, name, seed)
    try:
        result = json.loads(path.read_text())
        wanted = json.loads(json.dumps(to_dict(suite.run(name, seed or 0, folder))))
        found = {
            section: json.loads(json.dumps(before(kind))) | result["config"][section]
            for section, kind in SECTIONS.items()
        }
        changed = [
            f"{section}.{key}"
            for section, values in found.items()
            for key, value in wanted[section].items()
            if f"{section}.{key}" not in IGNORED and values[key] != value
        ]
        if seed is None:
            cost = {"size": list(suite.size), "classes": suite.classes}
            changed += [key for key, value in cost.items() if result[key] != value]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{path} is no result of this benchmark ({reason}); delete it") from None
    if changed:
        names = ", ".join(changed)
        raise UserError(
            f"{path} was made with other settings ({names}); delete it, or give another --out"
        )
    return result


def _done(
    suite: Suite, name: str, seed: int | None, folder: Path, root: str, failed: list[str]
) -> bool:
    """Do a job unless it has its result; False if another process does it. May add to failed."""
    path = _path(folder, name, seed)
    if not path.exists():
        # one cost at a time
        with _lock(
            path.with_suffix(".lock") if seed is not None else path.with_name("cost.lock")
        ) as lock:
            if lock is None:
                return False
            # another process may have finished it before the lock was ours
            if not path.exists() and not _succeeds(suite, name, seed, folder, root, lock):
                failed.append(path.stem)
                return True
    _read(suite, name, seed, folder)
    return True


@contextmanager
def _lock(path: Path) -> Iterator[int | None]:
    """Descriptor of the locked file, None if another process holds it; UserError if impossible."""
    try:
        import fcntl
    except ImportError:
        raise UserError("sharing runs between processes needs Linux or macOS", code=2) from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        reason = error.strerror
        raise UserError(
            f"{path} cannot be written ({reason}); choose another folder with --out"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        except OSError as error:
            reason = error.strerror
            raise UserError(
                f"{path} cannot be locked ({reason}); choose a folder on another disk with --out"
            ) from None
        yield file.fileno()


def _succeeds(
    suite: Suite, name: str, seed: int | None, folder: Path, root: str, lock: int
) -> bool:
    """Do a job in its own process, which has its memory to itself and shares the lock."""
    path, stopped = _path(folder, name, seed), 0
    print(f"== {path.stem}", flush=True)
    config = suite.run(name, seed or 0, folder / "runs", root)
    size = suite.size if seed is None else None
    with subprocess.Popen(command(config, path, size, suite.classes), pass_fds=[lock]) as worker:
        while True:
            try:
                code = worker.wait()
                break
            except KeyboardInterrupt as asked:  # it saves and stops; a second one stops it at once
                stopped = getattr(asked, "signal", signal.SIGINT)
                worker.terminate()
    if stopped or code in (130, 143, -2, -9, -15):
        raise Stopped(stopped or signal.SIGINT)
    return code == 0
