"""A suite of systems, each trained once for each seed, by as many processes as are started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cfnseg.config import Config, load_module, to_dict
from cfnseg.errors import UserError, first_line, unknown


@dataclass(frozen=True)
class Suite:
    """What `tools/benchmark.py` compares.

    Attributes:
        systems: config by the system's name; names are file names as well.
        reference: the system that the others are tested against.
        name: the suite's name; its folder is runs/<name>.
        size: (H, W) of the images that cost is measured with.
        classes: C of the data set.
    """

    systems: dict[str, Config]
    reference: str
    size: tuple[int, int]
    classes: int
    name: str = ""

    def run(self, system: str, seed: int, folder: Path, root: str = "") -> Config:
        """The config of one run in ``folder``."""
        config = self.systems[system]
        data = replace(config.data, root=root) if root else config.data
        return replace(config, name=f"{system}-s{seed}", runs=str(folder), data=data, train=replace(config.train, seed=seed))


def load_suite(path: str | Path) -> Suite:
    """The ``suite`` of a config file, named after the file. Raises UserError if there is none."""
    suite = getattr(load_module(path), "suite", None)
    if not isinstance(suite, Suite):
        raise UserError(f"{path} defines no `suite = cfnseg.lab.ablation.Suite(...)`", code=2)
    if suite.reference not in suite.systems:
        raise UserError(f"{path}: the reference {suite.reference!r} is none of its systems {', '.join(suite.systems)}", code=2)
    return suite if suite.name else replace(suite, name=Path(path).stem)


@dataclass(frozen=True)
class Results:
    """What is known of a suite's systems.

    Attributes:
        runs: finished runs by system, in the order of their seeds; see `cfnseg.lab.worker.score_of`.
        costs: see `cfnseg.lab.cost.cost_of`; a system without has not been measured.
    """

    runs: dict[str, list[dict[str, Any]]]
    costs: dict[str, dict[str, Any]]


def run_suite(suite: Suite, folder: Path, seeds: int, root: str = "", only: list[str] | None = None) -> Results:
    """Train, score and measure what has no result yet.

    Args:
        suite: what is compared.
        folder: where runs and results live.
        seeds: 0 to seeds - 1 of each system; the first seed of all systems comes first.
        root: the data set's folder, "" = as in the configs.
        only: these systems, None = all.

    Raises:
        UserError: an unknown system; a run that cannot be trained; a result that other settings made.
    """
    names = _names(suite, seeds, only)
    failed: list[str] = []
    waiting: list[tuple[str, int | None]] = [(name, seed) for seed in range(seeds) for name in names] + [(name, None) for name in names]
    while waiting:
        left = [(name, seed) for name, seed in waiting if not _done(suite, name, seed, folder, root, failed)]
        if left and len(left) == len(waiting):
            time.sleep(5)  # the rest is in other processes' hands
        waiting = left
    if failed:
        raise UserError(f"{', '.join(failed)} failed, see above; what is finished is kept, --table-only makes a table of it")
    return finished(suite, folder, seeds, names)


def _names(suite: Suite, seeds: int, only: list[str] | None) -> list[str]:
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: expected 1 or more", code=2)
    if wrong := [name for name in only or () if name not in suite.systems]:
        raise unknown("--only", wrong[0], suite.systems)
    return only or list(suite.systems)


def finished(suite: Suite, folder: Path, seeds: int, only: list[str] | None = None) -> Results:
    """The results that are there, be it of some seeds only; a system without any is left out. Raises UserError as `run_suite`."""
    runs, costs = {}, {}
    for name in _names(suite, seeds, only):
        if found := [_read(suite, name, seed, folder) for seed in range(seeds) if _path(folder, name, seed).exists()]:
            runs[name] = found
        if _path(folder, name, None).exists():
            costs[name] = _read(suite, name, None, folder)
    if not runs:
        raise UserError(f"no result of {suite.name} in {folder / 'results'} yet")
    return Results(runs, costs)


def _path(folder: Path, name: str, seed: int | None) -> Path:
    return folder / "results" / (f"{name}-cost.json" if seed is None else f"{name}-s{seed}.json")


def _read(suite: Suite, name: str, seed: int | None, folder: Path) -> dict[str, Any]:
    path = _path(folder, name, seed)
    try:
        result = json.loads(path.read_text())
        changed = _changed(result["config"], suite.run(name, seed or 0, folder))
        if seed is None:
            changed += [k for k, v in (("size", list(suite.size)), ("classes", suite.classes)) if result[k] != v]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no result of this benchmark ({type(error).__name__}: {first_line(error)}); delete it") from None
    if changed:
        raise UserError(f"{path} was made with other settings ({', '.join(changed)}); delete it, or give another --out")
    return result


def _done(suite: Suite, name: str, seed: int | None, folder: Path, root: str, failed: list[str]) -> bool:
    """Whether a job is over, done now if need be: has its result or is in ``failed``; False if another process is at it."""
    path = _path(folder, name, seed)
    if not path.exists():
        with _lock(path.with_suffix(".lock")) as lock:
            if lock is None:
                return False
            if not path.exists():  # another process may have finished it before the lock was ours
                print(f"== {path.stem}", flush=True)
                job = {"config": to_dict(suite.run(name, seed or 0, folder / "runs", root)), "out": str(path),
                       "size": None if seed is not None else suite.size, "classes": suite.classes, "parent": os.getpid()}
                if not _in_a_process(job, lock):
                    failed.append(path.stem)
                    return True
    _read(suite, name, seed, folder)
    return True


IGNORED = {"data.root", "data.workers", "data.download", "train.seed", "train.accelerator", "train.save_every", "train.pictures"}


def _changed(made: dict[str, Any], config: Config) -> list[str]:
    """Settings that differ from those that a result was made with, of those that matter to it."""
    now = json.loads(json.dumps(to_dict(config)))
    return [f"{s}.{k}" for s in ("model", "data", "optim", "loss", "train") for k, value in now[s].items()
            if f"{s}.{k}" not in IGNORED and made[s].get(k, value) != value]


@contextmanager
def _lock(path: Path) -> Iterator[int | None]:
    """The descriptor of the locked file, or None if another process holds the lock. Raises UserError if it cannot be made."""
    try:
        import fcntl
    except ImportError:
        raise UserError("tools/benchmark.py needs Linux or macOS to share runs between processes", code=2) from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another folder with --out") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        except OSError as error:
            raise UserError(f"{path} cannot be locked ({error.strerror}); choose a folder on another disk with --out") from None
        yield file.fileno()


def _in_a_process(job: dict[str, Any], lock: int) -> bool:
    """Do a job in a process of its own, which shares the lock: memory is then that of one system alone. False if it failed."""
    stopped = False
    with subprocess.Popen([sys.executable, "-m", "cfnseg.lab.worker", json.dumps(job)], pass_fds=[lock]) as worker:
        while True:
            try:
                code = worker.wait()
                break
            except KeyboardInterrupt:  # the worker got it too, and is saving; a second one stops it at once
                stopped = True
    if stopped or code in (130, -2, -9, -15):
        raise KeyboardInterrupt
    return code == 0
