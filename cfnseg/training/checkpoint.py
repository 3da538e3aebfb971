"""`last.ckpt`: what continues a run, and what must be the same then."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from cfnseg.config import Config, Data, Loss, Model, Optim, Train, to_dict
from cfnseg.data.dataset import Dataset
from cfnseg.data.formats.class_folders import ImageSet
from cfnseg.errors import UserError
from cfnseg.storage import load_plain, write_atomic

SECTIONS = {"model": Model, "data": Data, "optim": Optim, "loss": Loss, "train": Train}
# What may differ between a run and its continuation: none of it changes a weight of a step that was done.
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
            f"{folder} holds a run already; continue it with --resume, give this one a --name, or delete it",
            code=2,
        )
    return None


def changed_settings(saved: dict[str, Any], config: Config) -> tuple[list[str], dict[str, Any]]:
    """The settings that a resumed run must keep and does not, and the ``train`` section as it was.

    A setting that the checkpoint's edition did not have was at its default.
    """
    now = json.loads(json.dumps(to_dict(config)))
    before = {
        s: {f.name: f.default for f in fields(kind)} | saved[s] for s, kind in SECTIONS.items()
    }
    changed = [
        f"{s}.{k}"
        for s in SECTIONS
        for k in now[s]
        if json.loads(json.dumps(before[s][k])) != now[s][k] and k not in FREE_TO_CHANGE
    ]
    return changed, before["train"]


def fingerprint(data: Dataset | ImageSet) -> str:
    """A digest of the images' names and the classes: both decide what a step sees."""
    text = "\n".join([*data.names, "", *data.labels.names])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
