"""The encoder: a timm backbone that gives one feature map per stage, for images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.data.bands import Bands
from cfnseg.errors import UserError, first_line
from cfnseg.models.backbone import backbone, constant_padding, fit
from cfnseg.models.parts import cropped
from cfnseg.models.pretrained import load_encoder_weights


class Normalised(nn.Module):
    """A network that normalises its images itself.

    Args:
        mean, std: per channel, of RGB in 0..1.
        bands: of images that are no 8-bit RGB; their mean and std are taken then.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], bands: Bands | None = None
    ) -> None:
        super().__init__()
        self.bands = bands
        for name, own in (("mean", mean), ("std", std)):
            values = torch.tensor(getattr(bands, name, own), dtype=torch.float32)
            self.register_buffer(name, values.view(1, -1, 1, 1), persistent=False)

    @property
    def normalisation(self) -> dict[str, object]:
        """The header entry of a weights file."""
        if self.bands:
            return asdict(self.bands)
        return {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}

    def normalised(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) RGB, uint8 in 0..255 or float in 0..1, less the mean, over the deviation.

        With ``bands`` (N, C, H, W) of their type; a value that is not finite becomes the mean.
        """
        if self.bands:
            values = (images.to(self.mean.dtype) - self.mean) / self.std
            return values if self.bands.type != "float32" else values.nan_to_num(0.0, 0.0, 0.0)
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        return (images - self.mean) / self.std


class Encoder(Normalised):
    """A timm backbone: RGB of any size in, stage maps out.

    Args:
        name: a timm model name; `cfnseg.models.backbone.fit` says what it must support.
        strides: output strides of the stages to return, ascending, e.g. (4, 8, 16, 32). A first 2
            is left out where the backbone has no such stage.
        weights: None, "timm", a file, or "package:<name>"; see `load_encoder_weights`.
        output_stride: 8 or 16 dilates the later stages in place of striding (Chen et al. 2017).
            ``strides`` still names stages by their undilated stride.
        bands: of images that are no 8-bit RGB. timm adapts the first layer and its weights.

    Attributes:
        channels, strides: of each returned stage.
        padding: the maps cover the image with sides rounded up to a multiple of it: 32, or the
            coarsest stride.
        multiple: the backbone's own input is rounded up to it, further than ``padding`` where
            attention windows ask for it.
        receive_norm, head_std: how side branches and classifiers on it are built.

    Raises:
        UserError: an unknown backbone (with the nearest names), one with a fixed image size, a
            stride that it lacks, or unusable weights.
    """

    receive_norm, head_std = True, 0.01

    def __init__(
        self,
        name: str,
        strides: tuple[int, ...],
        weights: str | None = None,
        output_stride: int = 32,
        bands: Bands | None = None,
    ) -> None:
        form = fit(name, output_stride)
        have = list(form.reductions)
        if strides[:1] == (2,) and 2 not in have:
            strides = strides[1:]
        if not strides or list(strides) != sorted(set(strides)) or strides[0] > 32:
            raise UserError(
                f"model.strides {tuple(strides)}: expected ascending strides, each once, the first "
                "32 or less, such as 4 8 16 32",
                code=2,
            )
        if missing := [s for s in strides if s not in have]:
            kept = " ".join(str(s) for s in sorted(set(have)) if s >= 4)
            raise UserError(
                f"model.strides: {name} has no stage at stride {missing[0]}; it has {have}. "
                f"Set --model.strides {kept}",
                code=2,
            )
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        super().__init__(config.mean, config.std, bands)
        # of two stages with one stride, the later has seen more
        self.index = [len(have) - 1 - have[::-1].index(s) for s in strides]
        settings = dict(form.settings)
        if self.index[-1] < len(have) - 1:  # timm then need not build stages that nothing reads
            settings["out_indices"] = tuple(range(self.index[-1] + 1))
        if bands:
            settings["in_chans"] = len(bands)
        try:
            self.body = constant_padding(backbone(name, **settings))
        except Exception as error:
            if not bands:
                raise
            raise UserError(
                f"model.encoder {name!r} does not take {bands} ({first_line(error)})", code=2
            ) from None
        self.strides = tuple(min(s, output_stride) for s in strides)
        self.padding, self.multiple = max(32, *strides), form.multiple
        self.channels_last, self.exact = form.channels_last, form.exact
        self.channels = [self.body.feature_info.channels()[i] for i in self.index]
        if weights:
            load_encoder_weights(self.body, name, weights)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Stage maps of ``images``.

        Args:
            images: (N, 3, H, W) RGB, uint8 in 0..255 or float in 0..1; H, W >= 32. With ``bands``
                (N, C, H, W) values as stored.

        Returns:
            One (N, C_s, H'/s, W'/s) map per stride s, where H', W' are H, W rounded up to a
            multiple of ``padding``.

        Raises:
            ValueError: another shape.
        """
        size = height, width = images.shape[-2:]
        channels = self.mean.shape[1]
        if images.ndim != 4 or images.shape[1] != channels or min(size) < 32:
            raise ValueError(
                f"images: expected (N, {channels}, H >= 32, W >= 32), got {tuple(images.shape)}"
            )
        images = self.normalised(images)
        right, bottom = (rounded(n, self.multiple) - n for n in (width, height))
        images = F.pad(images, (0, right, 0, bottom))
        stages, seen = self.body(images), images.shape[-2:]
        return [self._map(stages[i], s, seen, size) for i, s in zip(self.index, self.strides)]

    def _map(
        self, stage: Tensor, stride: int, seen: tuple[int, int], size: tuple[int, int]
    ) -> Tensor:
        """The map that `forward` returns for a stage of the backbone's input of size ``seen``."""
        if self.channels_last:
            stage = stage.permute(0, 3, 1, 2)
        if not self.exact:  # convolutions without padding lose the border's cells
            shape = seen[0] // stride, seen[1] // stride
            stage = F.interpolate(stage, shape, mode="bilinear", align_corners=False)
        if self.multiple == self.padding:
            return stage
        return cropped(stage, stride, tuple(rounded(n, self.padding) for n in size))


def rounded(n: int, multiple: int) -> int:
    """``n`` rounded up; by a division, so that an exporter knows the result as a multiple."""
    return (n + multiple - 1) // multiple * multiple
