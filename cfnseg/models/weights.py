"""Weights files (.safetensors): all that is needed to use a trained model, or to start from it."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cfnseg import __version__
from cfnseg.config import Model
from cfnseg.data.labels import ClassNames, LabelMap
from cfnseg.errors import UserError, first_line
from cfnseg.models.build import build_model
from cfnseg.models.header import read_header
from cfnseg.models.hub_file import hub_file, hub_hint, is_hub_name
from cfnseg.models.pretrained import adapted
from cfnseg.shipped import shipped_weights
from cfnseg.storage import write_atomic

OWN = "own"  # model.name of a model that is no code of this package
DESCRIBED = "the model that its header describes"


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

    @property
    def thresholds(self) -> np.ndarray | None:
        """(C,) float64 probability from which on a pixel is of a class, of sigmoid outputs; None
        for softmax."""
        if self.settings.output == "softmax":
            return None
        return np.array(self.score.get("thresholds", [0.5] * len(self.labels)))

    def demand_softmax(self, path: object, what: str) -> None:
        """Raise UserError (usage) for sigmoid outputs, which ``what`` cannot take."""
        if self.settings.output != "softmax":
            raise UserError(
                f"{path} has sigmoid outputs, whose classes may overlap; {what} takes softmax "
                "outputs alone",
                code=2,
            )


def save_weights(
    path: str | Path,
    model: nn.Module,
    settings: Model,
    labels: LabelMap | ClassNames,
    score: dict[str, Any],
    half: bool = False,
) -> None:
    """Write a self-describing .safetensors file: tensors, and a JSON header with model, labels,
    normalisation and score.

    Args:
        path: the file.
        model: a network of `cfnseg.models.build.build_model`, or a user's own.
        settings: the settings it was built from; their name is `OWN` for a user's own model.
        labels: its classes.
        score: see `Weights`.
        half: store float16; `load` gives float32 again.
    """
    tensors = {
        k: (v.half() if half and v.is_floating_point() else v).contiguous().cpu()
        for k, v in model.state_dict().items()
    }
    header = {
        "version": __version__,
        "model": asdict(settings),
        "labels": labels.to_dict(),
        "score": score,
        "normalisation": {} if settings.name == OWN else model.encoder.normalisation,
    }
    write_atomic(
        path, lambda temporary: save_file(tensors, temporary, {"cfnseg": json.dumps(header)})
    )


def load(path: str | Path | None = None, model: nn.Module | None = None) -> Weights:
    """Rebuild a trained model from its weights file alone.

    Args:
        path: a weights file of cfnseg, or one of the Hugging Face Hub, "hf:user/name", see
            `cfnseg.models.hub_file.hub_file`; None = the file that ships, see
            `cfnseg.shipped.shipped_weights`.
        model: the network that gets the weights, in place; needed where it was a user's own.

    Raises:
        UserError: no such file, not safetensors (a pickle is never opened), no header of ours, a
            value in it that no file of ours has, or tensors that do not fit it. No memory is taken
            for what the file lacks, and nothing is downloaded but a file of the hub.

    Example:
        >>> import cfnseg
        >>> weights = cfnseg.load("runs/example/best.safetensors")
        >>> weights.settings.encoder, weights.labels.names[:2], weights.score["data"]
        ('test_efficientnet', ['sky', 'ground'], 'shapes')
    """
    path = Path(path or shipped_weights())
    local = hub_file(path) if is_hub_name(path) else path
    if not local.is_file():
        raise UserError(
            f"{path} is a folder; give a weights file (.safetensors) in it"
            if path.is_dir()
            else f"no weights file {path}{hub_hint(path)}"
        )
    try:
        with safe_open(local, framework="pt") as file:
            text = (file.metadata() or {}).get("cfnseg")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except Exception as error:  # a parser that is fed garbage raises anything
        raise UserError(
            f"{path} is corrupt or no safetensors file and was not loaded ({first_line(error)})"
        ) from None
    if text is None:
        raise UserError(f"{path} has no cfnseg header; it is not a file that cfnseg trained")
    try:
        header = read_header(text)
        own = header.settings.name == OWN
        if own and model is None:
            raise UserError(
                "its model is no code of cfnseg; give the model: cfnseg.load(path, model)"
            )
        if model is None:
            # no memory for a model that the tensors turn out not to be of
            build = functools.partial(build_model, pretrained=False, bands=header.bands)
            with torch.device("meta"):
                shape = build(header.settings, len(header.labels))
            _demand_same(shape.state_dict(), tensors, DESCRIBED)
            model = build(header.settings, len(header.labels))
        else:
            _demand_same(model.state_dict(), tensors, "the model that was given")
        model.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
        )
        expected = {} if own else model.encoder.normalisation
        if header.normalisation.keys() != expected.keys():
            found = ", ".join(header.normalisation)[:80] or "nothing"
            raise UserError(
                f"normalisation in the cfnseg header has {found}; "
                f"expected {', '.join(expected) or 'nothing'}"
            )
    except UserError as error:
        raise UserError(f"{path}: {error}", error.code) from None
    except Exception as error:  # what a stranger wrote can be wrong in any way
        raise UserError(
            f"{path}: the tensors do not fit {DESCRIBED} ({first_line(error)})"
        ) from None
    # as trained, whatever the timm installed here says
    for name in {"mean", "std"} & header.normalisation.keys():
        values = torch.tensor(header.normalisation[name])
        getattr(model.encoder, name).copy_(values.view(1, -1, 1, 1))
    return Weights(model.eval(), header.settings, header.labels, header.score)


def _demand_same(own: dict[str, Tensor], theirs: dict[str, Tensor], model: str) -> None:
    """UserError for the first tensor that the model lacks or the file lacks, or whose shape or kind
    of number differs."""
    for what, names in (
        ("no tensor", own.keys() - theirs.keys()),
        ("a tensor too many,", theirs.keys() - own.keys()),
    ):
        if names:
            raise UserError(
                f"the tensors do not fit {model}: {what} {min(names)[:200]} ({len(names)} such)"
            )
    for name, tensor in own.items():
        there = theirs[name]
        if tensor.shape != there.shape or tensor.is_floating_point() != there.is_floating_point():
            raise UserError(
                f"the tensors do not fit {model}: {name} is {tuple(there.shape)} {there.dtype}, "
                f"the model's {tuple(tensor.shape)} {tensor.dtype}"
            )


class Start(NamedTuple):
    """What fine-tuning begins with.

    Attributes:
        untouched: the model's tensors that the file has nothing for, such as another fusion.
        classes: how the classes were matched; "" if they are the file's, in its order.
    """

    untouched: list[str]
    classes: str


def start_from(
    model: nn.Module, path: str | Path, settings: Model, labels: LabelMap | ClassNames
) -> Start:
    """Copy the tensors of a weights file whose names and shapes fit into ``model``, for
    fine-tuning.

    A tensor with a place for each class is copied class by class: classes match by name, first
    exactly, then regardless of case. New classes keep the model's weights; the file's other classes
    are left out.

    Args:
        model: as built from ``settings``; changed in place.
        path: the weights file.
        settings: the model section of the run.
        labels: the run's classes.

    Raises:
        UserError: the file cannot be used, or nothing in it fits.
    """
    weights = load(path)
    own, theirs = model.state_dict(), weights.model.state_dict()
    pairs = match_names(labels.names, weights.labels.names)
    here, there = torch.tensor(pairs, dtype=torch.long).view(-1, 2).unbind(1)
    axes, their_axes = (
        class_axes(settings, len(labels)),
        class_axes(weights.settings, len(weights.labels)),
    )
    untouched = []
    for name, tensor in own.items():
        axis, other = axes[name], theirs.get(name)
        fits = other is not None and axis == their_axes[name] and other.ndim == tensor.ndim
        if fits and axis is None:
            other = adapted(other, tensor)  # a first layer of RGB, for bands
        if fits and axis is None and tensor.shape == other.shape:
            tensor.copy_(other)
        elif (
            fits
            and axis is not None
            and pairs
            and tensor.select(axis, 0).shape == other.select(axis, 0).shape
        ):
            tensor.index_copy_(axis, here, other.index_select(axis, there))
        else:
            untouched.append(name)
    if len(untouched) == len(own):
        raise UserError(f"train.init {path}: none of its {len(theirs)} tensors fits this model")
    if labels.names == weights.labels.names:
        return Start(untouched, "")
    mine, old = set(here.tolist()), set(there.tolist())
    lists = {
        "matched by name": [n for i, n in enumerate(labels.names) if i in mine],
        "new": [n for i, n in enumerate(labels.names) if i not in mine],
        "left out": [n for i, n in enumerate(weights.labels.names) if i not in old],
    }
    return Start(
        untouched,
        "classes "
        + "; ".join(
            f"{what} {len(names)} ({', '.join(names)})" for what, names in lists.items() if names
        ),
    )


def match_names(own: list[str], theirs: list[str]) -> list[tuple[int, int]]:
    """Pairs (index in ``own``, index in ``theirs``) of equal names; those left over pair if they
    are equal but for case."""
    pairs: dict[int, int] = {}
    for form in (str, str.casefold):
        free = {
            form(name): i
            for i, name in reversed(list(enumerate(theirs)))
            if i not in pairs.values()
        }
        for i, name in enumerate(own):
            if i not in pairs and (j := free.pop(form(name), None)) is not None:
                pairs[i] = j
    return sorted(pairs.items())


def class_axes(settings: Model, classes: int) -> dict[str, int | None]:
    """The axis of each tensor of a model along which its classes lie, or None: the one that one
    more class would lengthen."""
    with torch.device("meta"):
        fewer, more = (
            build_model(settings, n, pretrained=False).state_dict() for n in (classes, classes + 1)
        )
    return {
        name: next(
            (i for i, (a, b) in enumerate(zip(tensor.shape, more[name].shape)) if a != b), None
        )
        for name, tensor in fewer.items()
    }


def check_labels(
    own: LabelMap | ClassNames, labels: LabelMap | ClassNames, path: str | Path, data: str
) -> None:
    """UserError unless the classes of the weights are those of the data set, in their order."""
    ours, theirs = own.names, labels.names
    if ours != theirs:
        pairs = enumerate(zip(ours, theirs))
        others = (f": class {i} is {a!r} here and {b!r} there" for i, (a, b) in pairs if a != b)
        where = next(others, "")
        raise UserError(
            f"{path} has {len(ours)} classes, {data} has {len(theirs)}{where}; "
            "evaluate it on the data set it was trained for"
        )
