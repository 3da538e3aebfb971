"""Local descriptors of images: the places of a frozen net's stage maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.models.segmenter import in_mode


def stage_descriptors(
    net: nn.Module,
    images: np.ndarray,
    stage: int,
    batch: int = 64,
    device: torch.device | str | None = None,
) -> np.ndarray:
    """One stage of ``net`` as local descriptors.

    Args:
        net: ``forward`` takes (N, 3, H, W) uint8 RGB and returns a list of (N, C_s, h_s, w_s) maps,
            as `cfnseg.models.encoder.Encoder` does. If it has ``strides``, cells of its padding are
            left out. It runs in evaluation mode and is left in the mode that it had.
        images: (N, H, W, 3) uint8 RGB, N >= 1.
        stage: index into the maps; -1 is the last.
        batch: images at once.
        device: ``net`` is moved there and stays there. None = where it is.

    Returns:
        (N, h x w, C) float32, row by row, all in memory: 4 N h w C bytes.

    Raises:
        ValueError: ``images`` have another shape or type, or there is no such stage.
    """
    return _collect(net, images, batch, device, lambda maps: (_stage(maps, stage),))[0]


def stage_pair(
    net: nn.Module,
    images: np.ndarray,
    stage: int,
    batch: int = 64,
    device: torch.device | str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A stage and the next one at the same places, for `CrossLayerPooling`.

    The next stage is upsampled bilinearly to the cells of the first, as a side branch is; in the
    method's paper both layers have one size. Arguments and errors are as for `stage_descriptors`;
    ``stage`` cannot be the last.

    Returns:
        (N, h x w, C_s) and (N, h x w, C_s+1), float32.
    """

    def both(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        lower = _stage(maps, stage)
        if stage in (-1, len(maps) - 1):
            raise ValueError(
                f"stage {stage}: the last of {len(maps)} stages, no next one to pair it with"
            )
        upper = maps[stage + 1].float()
        size = lower.shape[-2:]
        return lower, F.interpolate(upper, size, mode="bilinear", align_corners=False)

    lower, upper = _collect(net, images, batch, device, both)
    return lower, upper


def _collect(
    net: nn.Module,
    images: np.ndarray,
    batch: int,
    device: torch.device | str | None,
    pick: Callable[[list[Tensor]], tuple[Tensor, ...]],
) -> tuple[np.ndarray, ...]:
    """The maps that ``pick`` takes from the unpadded stage maps, as (N, places, C) float32."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not len(images):
        raise ValueError(
            f"images: expected (N >= 1, H, W, 3) uint8, got {images.dtype} {images.shape}"
        )
    if batch < 1:
        raise ValueError(f"batch: expected at least 1, got {batch}")
    if device is None:
        tensors = (*net.parameters(), *net.buffers())
        device = next((t.device for t in tensors), torch.device("cpu"))
    net.to(device)
    parts = []
    with in_mode(net), torch.inference_mode():
        for start in range(0, len(images), batch):
            pixels = torch.tensor(images[start : start + batch]).permute(0, 3, 1, 2)
            maps = list(net(pixels.contiguous().to(device)))
            for i, stride in enumerate(getattr(net, "strides", ())):
                height, width = (-(-n // stride) for n in images.shape[1:3])
                maps[i] = maps[i][..., :height, :width]
            parts.append([m.flatten(2).transpose(1, 2).float().cpu() for m in pick(maps)])
    return tuple(torch.cat(part).numpy() for part in zip(*parts))


def _stage(maps: list[Tensor], stage: int) -> Tensor:
    if not -len(maps) <= stage < len(maps):
        raise ValueError(f"stage {stage}: the net has {len(maps)} stages, 0 to {len(maps) - 1}")
    return maps[stage]
