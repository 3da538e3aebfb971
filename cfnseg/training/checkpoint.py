"""`last.ckpt`: what continues a run, and what must be the same then."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cfnseg.config import SECTIONS
from cfnseg.config_values import before, to_dict
from cfnseg.data.dataset import Dataset
from cfnseg.data.formats.class_folders import ImageSet
from cfnseg.errors import UserError, first_line
from cfnseg.models.weights import OWN
from cfnseg.storage import load_plain, write_atomic

if TYPE_CHECKING:
    from cfnseg.training.run import Run

# What may differ between a run and its continuation: it changes no weight of a step that was done.
FREE_TO_CHANGE = {
    "workers",
    "download",
    "save_every",
    "val_every",
    "pictures",
    "patience",
    "root",
    "log_every",
    "cudnn_benchmark",
    "epochs",
    "max_steps",
    "loggers",
}


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write resumable state (tensors, numbers, strings, lists, dicts) atomically.

    Raises UserError if it cannot.
    """
    write_atomic(path, lambda temporary: torch.save(state, temporary))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote; no code in the file runs.

    Raises UserError if it is missing or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint {path} to resume from; start without --resume")
    return load_plain(path)


def previous(folder: Path, resume: bool) -> dict[str, Any] | None:
    """The checkpoint of a run to resume, None for a new run.

    UserError if it is missing, or there although not resumed.
    """
    path = folder / "last.ckpt"
    if resume:
        saved = load_checkpoint(path)
        if not isinstance(saved, dict) or not isinstance(saved.get("state"), dict):
            raise UserError(f"{path} is no checkpoint of this run (it holds other things)")
        return saved
    if path.exists():
        raise UserError(
            f"{folder} holds a run already; continue it with --resume, give this one a --name, "
            "or delete it",
            code=2,
        )
    return None


def checkpoint_of(run: Run) -> dict[str, Any]:
    """All that `restore` needs to continue a run."""
    return {
        "model": run.network.state_dict(),
        "ema": run.ema.state_dict() if run.ema else None,
        "optimizer": run.optimizer.state_dict(),
        "precision": run.fabric.strategy.precision.state_dict(),
        "state": run.state,
        "images": fingerprint(run.data),
        "bands": asdict(run.bands) if run.bands else None,
        "config": to_dict(run.config),
    }


def restore(run: Run, saved: dict[str, Any]) -> int:
    """Put a run in the state that `checkpoint_of` saved; returns how many steps longer it is now.

    A setting that the checkpoint's edition did not have was at `cfnseg.config.before`.

    Raises:
        UserError: another run's checkpoint, a setting that may not change, or fewer steps in all
            than are done.
    """
    path = run.folder / "last.ckpt"
    try:
        then = {
            section: before(kind) | saved["config"][section] for section, kind in SECTIONS.items()
        }
        now = to_dict(run.config)
        changed = [
            f"{section}.{name}"
            for section, values in json.loads(json.dumps(then)).items()
            for name in now[section]
            if values[name] != now[section][name] and name not in FREE_TO_CHANGE
        ]
        if saved["images"] != fingerprint(run.data):
            changed.append("the training images or classes")
        theirs, ours = (
            {k: v.shape for k, v in state.items()}
            for state in (saved["model"], run.network.state_dict())
        )
        if run.config.model.name == OWN and theirs != ours and not changed:
            changed.append("the model's parameters")
        if changed:
            raise UserError(
                f"--resume: {', '.join(changed)} differs from the run in {run.folder}; "
                "a resumed run keeps its settings"
            )
        run.network.load_state_dict(saved["model"])
        if run.ema:
            run.ema.load_state_dict(saved["ema"])
        run.optimizer.load_state_dict(saved["optimizer"])
        run.fabric.strategy.precision.load_state_dict(saved["precision"])
        run.state |= saved["state"]
        length = then["train"]["max_steps"] or then["train"]["epochs"] * run.per_epoch
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{path} is no checkpoint of this run ({type(error).__name__}: {first_line(error)})"
        ) from None
    if run.total < run.state["step"]:
        raise UserError(
            f"--resume: the run in {run.folder} has done {run.state['step']} steps; "
            f"{run.total} are fewer. Give --train.epochs or --train.max-steps at least as many",
            code=2,
        )
    return run.total - length


def fingerprint(data: Dataset | ImageSet) -> str:
    """A digest of the images' names and the classes: both decide what a step sees."""
    text = "\n".join([*data.names, "", *data.labels.names])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
