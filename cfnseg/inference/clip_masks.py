"""The masks of a clip that an earlier command left: which of them count.

Masks are written one by one, in the order of the frames, each whole or absent. So a command that
was stopped, however, left the first n. The file `ABOUT` beside them says what they were made of.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cfnseg import __version__
from cfnseg.errors import UserError
from cfnseg.inference.settings import Inference
from cfnseg.models.hub_file import hub_file, is_hub_name
from cfnseg.storage import write_atomic

ABOUT, STATE = "clip.json", ".smoothing.pt"  # what the masks are of; the state of the smoothing
ENDS = 2**20  # bytes at either end of a clip that identify it


def made_by(clip: str, weights: Path, inference: Inference, smooth: float) -> dict[str, Any]:
    """What decides the masks of a clip, as plain values.

    Args:
        clip: what `identity` gave.
        weights: the weights file.
        inference, smooth: as for `cfnseg.inference.clip_files.infer_clip`.
    """
    local = hub_file(weights) if is_hub_name(weights) else weights
    with local.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    values = {
        "clip": clip,
        "weights": content,
        "settings": asdict(inference),
        "smooth": smooth,
        "cfnseg": __version__,
    }
    return json.loads(json.dumps(values))  # tuples become lists, as in the file


def identity(path: Path) -> str:
    """A clip's size and a hash of its first and last MiB: the same for a copy."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        ends = file.read(ENDS)
        file.seek(max(0, size - ENDS))
        return f"{size} bytes, {hashlib.sha256(ends + file.read()).hexdigest()}"


def kept_masks(folder: Path, origin: dict[str, Any]) -> int:
    """How many masks an earlier command left, if its `made_by` was ``origin``; those of another are
    removed, with a line.

    Raises UserError (usage) for a folder with other files.
    """
    there = {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    if not there:
        return 0
    if ABOUT not in there:
        raise UserError(f"{folder} has files that are no masks of a clip; give another --out", 2)
    try:
        before = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["made_by"]
    except (OSError, ValueError, LookupError, TypeError):
        before = {}
    if differ := [key for key in origin if before.get(key) != origin[key]]:
        print(f"{folder}: its masks are of another {', '.join(differ)}; they are made anew")
        for mask in folder.glob("[0-9]*.png"):
            mask.unlink()
        (folder / STATE).unlink(missing_ok=True)
        return 0
    count = 0
    while (path := mask_path(folder, count)).exists() and path.stat().st_size:
        count += 1
    return count


def mask_path(folder: Path, frame: int) -> Path:
    """Where the mask of a frame is, counted from 0."""
    return folder / f"{frame:06d}.png"


def describe(folder: Path, clip: str, origin: dict[str, Any], frames: int | None) -> None:
    """Write the file beside the masks.

    Args:
        folder: of the masks.
        clip: its name.
        origin: what `made_by` gave.
        frames: how many there are; None as long as they are computed.
    """
    about = {"clip": clip, "frames": frames, "made_by": origin}
    text = json.dumps(about, indent=1)
    write_atomic(folder / ABOUT, lambda path: path.write_text(text, encoding="utf-8"))
