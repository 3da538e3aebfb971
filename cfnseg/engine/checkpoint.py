"""Two kinds of file: `last.ckpt`, to continue a run, and weights (.safetensors), to use its result."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

import cfnseg
from cfnseg.config import Model, from_dict
from cfnseg.data.labels import ClassNames, LabelMap
from cfnseg.errors import UserError, first_line
from cfnseg.models.build import build_model
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


@dataclass(frozen=True)
class Weights:
    """A trained model with all that is needed to use it.

    Attributes:
        model: in eval mode, on the CPU.
        settings: the model section it was built from.
        labels: its classes.
        score: what it reached, e.g. {"data": "camvid", "split": "val", "miou": 0.7, "images": 101}.
    """

    model: nn.Module
    settings: Model
    labels: LabelMap | ClassNames
    score: dict[str, Any] = field(default_factory=dict)


def save_weights(path: str | Path, model: nn.Module, settings: Model, labels: LabelMap | ClassNames, score: dict[str, Any],
                 half: bool = False) -> None:
    """Write a self-describing .safetensors file: tensors, and a JSON header with model, labels, normalisation and score.

    Args:
        path: the file.
        model: a network of `cfnseg.models.build.build_model`.
        settings: the settings it was built from.
        labels: its classes.
        score: see `Weights`.
        half: store float16; `load` gives float32 again.
    """
    tensors = {k: (v.half() if half and v.is_floating_point() else v).contiguous().cpu() for k, v in model.state_dict().items()}
    header = {"version": cfnseg.__version__, "model": asdict(settings), "labels": labels.to_dict(), "score": score,
              "normalisation": model.encoder.normalisation}
    write_atomic(path, lambda beside: save_file(tensors, beside, {"cfnseg": json.dumps(header)}))


def load(path: str | Path) -> Weights:
    """Rebuild a trained model from its weights file alone.

    Raises:
        UserError: no such file, not safetensors (a pickle is never opened), no header of ours, or tensors that do not fit it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no weights file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("cfnseg", "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is corrupt or no safetensors file and was not loaded ({error})") from None
    if header is None:
        raise UserError(f"{path} has no cfnseg header; it is not a file that cfnseg trained")
    try:
        settings = from_dict(Model, header["model"])
        labels = (ClassNames if settings.level == "image" else LabelMap).from_dict(header["labels"])
        model = build_model(settings, len(labels), pretrained=False)
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
        for name in {"mean", "std"} & model.encoder.normalisation.keys():  # as trained, whatever the timm installed here says
            getattr(model.encoder, name).copy_(torch.tensor(header["normalisation"][name]).view(1, 3, 1, 1))
    except UserError:
        raise
    except Exception as error:  # a header that somebody wrote can be wrong in any way
        raise UserError(f"{path}: the tensors do not fit the model that its header describes ({first_line(error)})") from None
    return Weights(model.eval(), settings, labels, header.get("score", {}))


def start_from(model: nn.Module, path: str | Path) -> list[str]:
    """Copy the tensors of a weights file whose names and shapes fit into ``model``, for fine-tuning.

    Returns:
        The names of the model's tensors that the file has nothing for, such as heads for other classes.

    Raises:
        UserError: the file cannot be used, or nothing in it fits.
    """
    own, theirs = model.state_dict(), load(path).model.state_dict()
    fitting = {k: v for k, v in theirs.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise UserError(f"train.init {path}: none of its {len(theirs)} tensors fits this model")
    model.load_state_dict(fitting, strict=False)
    return [k for k in own if k not in fitting]


def check_labels(weights: Weights, labels: LabelMap | ClassNames, path: str | Path, data: str) -> None:
    """UserError unless the classes of the weights are those of the data set, in their order."""
    ours, theirs = weights.labels.names, labels.names
    if ours != theirs:
        where = next((f"class {i} is {a!r} here and {b!r} there" for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), "")
        raise UserError(f"{path} has {len(ours)} classes, {data} has {len(theirs)}{': ' + where if where else ''}; "
                        "evaluate it on the data set it was trained for")
