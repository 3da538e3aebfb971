"""A run in TensorBoard, a CSV file, Weights & Biases or MLflow, through Lightning's loggers.

`log.jsonl` is the record of a run; ``train.loggers`` names who gets its numbers as well. No weight
depends on a logger, and no logger that fails ends a run.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import logging
import math
import os
import re
import secrets
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric import Fabric
from lightning.fabric.loggers import CSVLogger, TensorBoardLogger
from PIL import Image

from cfnseg.config import Config
from cfnseg.config_values import to_dict
from cfnseg.errors import Stopped, UserError, first_line, lacking
from cfnseg.storage import write_atomic
from cfnseg.training.hosts import together

# Defaults for variables of the libraries; a user's own values win. A training waits for its
# loggers, so they give up early. W&B shall not wrap our streams, nor send code.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "WANDB_INIT_TIMEOUT": "30",
    "WANDB_FINISH_TIMEOUT": "60",
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_DISABLE_CODE": "true",
    "WANDB_DISABLE_GIT": "true",
}
STEP = "trainer/global_step"  # the column in which WandbLogger keeps the step


class Loggers:
    """The loggers of a run, a context at whose end they learn how the run ended.

    The processes other than the main one have none. A logger that fails is named in one line and
    gets nothing more.

    Args:
        config: names them in ``train.loggers``; ``train.pictures`` 0 keeps the data from them.
        main: this is the main process.

    Raises:
        UserError: a package is missing.
    """

    def __init__(self, config: Config, main: bool) -> None:
        names = config.train.loggers
        for name in names:
            spec = None if name == "csv" else importlib.util.find_spec(name)
            # a folder of that name, such as W&B's own ./wandb, is a package without an origin
            if name != "csv" and (spec is None or spec.origin is None):
                raise lacking(f"train.loggers {name}", name)
        self.config, self.folder = config, Path(config.runs) / config.name
        self.names = names if main else ()
        self.active: dict[str, Any] = {}
        self.sent: dict[str, int] = {}  # the last training step that a resumed logger has
        self.say: Callable[[str], None] = print

    def start(self, step: int, say: Callable[[str], None]) -> None:
        """Open them, and begin or continue their runs.

        Args:
            step: done so far; above 0 the runs that `loggers.json` names go on from there.
            say: takes a line for the person.

        Raises:
            UserError: no network, no account, no permission.
        """
        self.say, path = say, self.folder / "loggers.json"
        known: dict[str, str] = {}
        if step:
            with contextlib.suppress(OSError, ValueError):
                known = dict(json.loads(path.read_text()))
        for variable, value in ENVIRONMENT.items() if self.names else ():
            os.environ.setdefault(variable, value)
        places = []
        for name in self.names:
            try:
                with _in_silence():
                    logger = OPEN[name](self.config, self.folder, step, known.get(name, ""))
                    self.sent[name] = _last_step(name, logger) if name in known else -1
                    if name not in known:
                        _describe(name, logger, self.config)
                    places.append(f"{name} ({_place(name, logger)})")
            except Exception as error:  # of any library
                hint = f"; without {path} it begins a new run" if known.get(name) else ""
                raise UserError(f"train.loggers {name}: {first_line(error)}{hint}") from None
            self.active[name], known[name] = logger, str(logger.version)
            write_atomic(path, lambda temporary: temporary.write_text(json.dumps(known)))
        if self.names:
            pictures = self.config.train.pictures
            shown = f"{pictures} validation images" if pictures else "no pictures"
            say(f"logging with {shown} to {', '.join(places)}")

    def training(self, step: int, values: dict[str, float]) -> None:
        """Log what a training step had, by name, as ``train/<name>``."""
        row = {f"train/{key}": value for key, value in values.items()}

        def log(name: str, logger: Any) -> None:
            if step > self.sent[name]:
                _numbers(name, logger, step, row)

        self._each(log)

    def validation(self, step: int, values: dict[str, float], picture: Path | None) -> None:
        """Log a validation's numbers, by their whole names, and its picture if there is one."""

        def log(name: str, logger: Any) -> None:
            _numbers(name, logger, step, values)
            if picture:
                _picture(name, logger, step, picture)

        self._each(log)

    def report(self, folder: Path, step: int) -> None:
        """Log the report: its text in TensorBoard, its files as an artifact in W&B and MLflow.

        Without ``train.pictures`` its text alone, which shows no image and names none.
        """

        def log(name: str, logger: Any) -> None:
            # the main process alone has loggers, and a report
            whole = bool(self.config.train.pictures)
            files = sorted(folder.iterdir()) if whole else [folder / "report.md"]
            if name == "tensorboard":
                logger.experiment.add_text("report", (folder / "report.md").read_text(), step)
            elif name == "mlflow":
                for file in files:
                    logger.experiment.log_artifact(logger.run_id, str(file), "report")
            elif name == "wandb":
                import wandb

                artifact = wandb.Artifact(f"report-{logger.version}", type="report")
                for file in files:
                    artifact.add_file(str(file), policy="immutable")  # no copy in the home
                logger.experiment.log_artifact(artifact)

        self._each(log)

    def save(self) -> None:
        """Bring everything logged to the disk, as a checkpoint is about to go there."""
        self._each(lambda name, logger: logger.save())

    def _each(self, work: Callable[[str, Any], object]) -> None:
        """Call ``work(name, logger)`` for every logger that works."""
        for name, logger in list(self.active.items()):
            try:
                work(name, logger)
            except Exception as error:  # of any library
                del self.active[name]
                self.say(f"train.loggers {name}: {first_line(error)}; the run goes on without it")

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        status, code = ("failed", 1) if error else ("success", 0)
        if isinstance(error, Stopped):
            status, code = "KILLED", 128 + error.signal

        def end(name: str, logger: Any) -> None:
            logger.finalize(status)
            if name == "wandb":  # its finalize leaves the run open, for the next run to write to
                logger.experiment.finish(exit_code=code)

        self._each(end)


def open_loggers(config: Config, fabric: Fabric) -> Loggers:
    """The loggers of this process. Raises UserError, in every process, if a package is missing."""
    return together(fabric, lambda: Loggers(config, fabric.global_rank == 0))


@contextlib.contextmanager
def _in_silence() -> Iterator[None]:
    """No lines of the libraries on stderr, and no question: W&B asks only at a terminal."""
    before, sys.stdin = sys.stdin, io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stdin = before
        logging.disable(logging.NOTSET)


def _tensorboard(config: Config, folder: Path, step: int, known: str) -> Any:
    """Events in <run>/tensorboard; those of a killed process after ``step`` are purged."""
    first = step + 1 if step else 0
    logger = TensorBoardLogger(
        folder, "tensorboard", version="", default_hp_metric=False, purge_step=first
    )
    logger.experiment.flush()
    return logger


def _csv(config: Config, folder: Path, step: int, known: str) -> Any:
    """<run>/csv/metrics.csv. CSVLogger deletes an old file, so its rows are written again."""
    path, aside = folder / "csv" / "metrics.csv", folder / "csv" / "before.csv"
    if path.exists() and not aside.exists():  # it exists where a process was killed in here
        path.replace(aside)
    text = aside.read_text() if aside.exists() else ""
    whole = text[: text.rfind("\n") + 1]  # a killed process may have left half a row
    logger = CSVLogger(folder, "csv", version="", flush_logs_every_n_steps=1)
    writer = logger.experiment
    for row in csv.DictReader(io.StringIO(whole)):
        done = int(row["step"])
        if done <= step:
            writer.log_metrics({k: v for k, v in row.items() if v}, done)
    with tempfile.TemporaryFile(dir=path.parent):
        pass  # a folder without write permission is found now
    logger.save()
    aside.unlink(missing_ok=True)
    return logger


def _wandb(config: Config, folder: Path, step: int, known: str) -> Any:
    """A run of the project WANDB_PROJECT or cfnseg; WANDB_MODE=offline keeps it in <run>/wandb."""
    from lightning.pytorch.loggers import WandbLogger

    # a sweep's agent names the run that it expects
    number = known or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
    project = os.environ.get("WANDB_PROJECT", "cfnseg")
    logger = WandbLogger(config.name, folder, version=number, project=project)
    _ = logger.experiment
    return logger


def _mlflow(config: Config, folder: Path, step: int, known: str) -> Any:
    """A run of the experiment MLFLOW_EXPERIMENT_NAME or cfnseg, on the server MLFLOW_TRACKING_URI
    or in <runs>/mlflow.db."""
    from lightning.pytorch.loggers import MLFlowLogger

    runs, server = Path(config.runs).absolute(), os.environ.get("MLFLOW_TRACKING_URI")
    logger = MLFlowLogger(
        os.environ.get("MLFLOW_EXPERIMENT_NAME", "cfnseg"),
        config.name,
        server or f"sqlite:///{runs / 'mlflow.db'}",
        artifact_location=None if server else str(runs / "mlflow"),
        run_id=known or None,
    )
    logger.experiment.update_run(logger.run_id, status="RUNNING")
    return logger


OPEN: dict[str, Callable[[Config, Path, int, str], Any]] = {
    "tensorboard": _tensorboard,
    "csv": _csv,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


def _describe(name: str, logger: Any, config: Config) -> None:
    """Log every setting, once in a run, as ``<section>.<field>``."""
    settings = {
        f"{section}.{key}" if key else section: value
        for section, values in to_dict(config).items()
        for key, value in (values if isinstance(values, dict) else {"": values}).items()
    }
    if name == "tensorboard":  # its table needs a score: the best one until now
        logger.log_hyperparams(settings, {"val/best": 0.0}, step=0)
    elif name != "csv":  # which has none; config.json is next to it
        logger.log_hyperparams(settings)


def _last_step(name: str, logger: Any) -> int:
    """The last training step in a continued run; -1 = none, or an offline run that cannot say.

    Rows in files are cut at the checkpoint; rows on a server stay, so they are not sent twice.
    """
    if name == "mlflow":
        history = logger.experiment.get_metric_history(logger.run_id, "train/loss")
        return max((metric.step for metric in history), default=-1)
    return int(logger.experiment.summary.get(STEP, -1)) if name == "wandb" else -1


def _numbers(name: str, logger: Any, step: int, values: dict[str, float]) -> None:
    """Log the finite values; MLflow's names have Latin letters, digits and ``_ - . / `` alone."""
    known = {key: value for key, value in values.items() if math.isfinite(value)}
    if name == "mlflow":
        allowed = re.compile(r"[\w./ -]+", re.ASCII)
        known = {
            key if allowed.fullmatch(key) else f"{re.sub(r'[^a-zA-Z0-9./-]', '_', key)} {i}": value
            for i, (key, value) in enumerate(known.items())
        }
    logger.log_metrics(known, step)


def _picture(name: str, logger: Any, step: int, path: Path) -> None:
    """Log a picture of validation images; a CSV file has none."""
    if name == "tensorboard":
        image = np.asarray(Image.open(path))
        logger.experiment.add_image("validation", image, step, dataformats="HWC")
    elif name == "wandb":
        logger.log_image("validation", [str(path)], step)
    elif name == "mlflow":
        logger.experiment.log_artifact(logger.run_id, str(path), "pictures")


def _place(name: str, logger: Any) -> str:
    """Where a person finds what was logged."""
    if name == "mlflow":
        import mlflow

        return re.sub("//[^/@]*@", "//", mlflow.get_tracking_uri())  # without a password
    if name == "wandb":
        run = logger.experiment
        return str(Path(run.dir).parent if run.offline else run.url)
    return str(logger.log_dir)
