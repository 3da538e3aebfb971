"""`last.ckpt`: what continues a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cfnseg.errors import UserError
from cfnseg.storage import load_plain, write_atomic


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write resumable state (tensors, numbers, strings, lists, dicts) atomically. Raises UserError if it cannot."""
    write_atomic(path, lambda beside: torch.save(state, beside))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote; no code in the file runs. Raises UserError if it is missing or something else."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint {path} to resume from; start without --resume")
    return load_plain(path)
