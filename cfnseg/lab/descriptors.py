"""Local descriptors of images: the places of a frozen net's stage maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def stage_descriptors(net: nn.Module, images: np.ndarray, stage: int, batch: int = 64,
                      device: torch.device | str | None = None) -> np.ndarray:
    """One stage of ``net`` as local descriptors.

    Args:
        net: ``forward`` takes (N, 3, H, W) uint8 RGB and returns a list of (N, C_s, h_s, w_s) maps, such as
            `cfnseg.models.encoder.Encoder`. If it has ``strides``, cells that lie wholly in its padding are left out. It runs
            in evaluation mode and is left in the mode it had.
        images: (N, H, W, 3) uint8 RGB, N >= 1.
        stage: index into the maps; -1 is the last.
        batch: images at once.
        device: where to run; ``net`` is moved there and stays. None = where it is.

    Returns:
        (N, h x w, C) float32, row by row. All of it is in memory: 4 N h w C bytes.

    Raises:
        ValueError: ``images`` have another shape or type, or there is no such stage.
    """
    return _collect(net, images, batch, device, lambda maps: (_stage(maps, stage),))[0]


def stage_pair(net: nn.Module, images: np.ndarray, stage: int, batch: int = 64,
               device: torch.device | str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A stage and the next one at the same places, for `cfnseg.lab.pooled_codes.CrossLayerPooling`.

    The next stage is upsampled bilinearly to the cells of the first, as a side branch is sent; the layers of the method's paper
    have one size. Arguments and errors are those of `stage_descriptors`; ``stage`` cannot be the last.

    Returns:
        (N, h x w, C_s) and (N, h x w, C_s+1), float32.
    """
    def both(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        lower = _stage(maps, stage)
        if stage in (-1, len(maps) - 1):
            raise ValueError(f"stage {stage}: the last of {len(maps)} stages, no next one to pair it with")
        upper = maps[stage + 1].float()
        return lower, F.interpolate(upper, lower.shape[-2:], mode="bilinear", align_corners=False)

    return _collect(net, images, batch, device, both)


def _collect(net: nn.Module, images: np.ndarray, batch: int, device: torch.device | str | None,
             pick: Callable[[list[Tensor]], tuple[Tensor, ...]]) -> tuple[np.ndarray, ...]:
    """The maps that ``pick`` takes from the stage maps without padding, of all images, as (N, places, C) float32 arrays."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not len(images):
        raise ValueError(f"images: expected (N >= 1, H, W, 3) uint8, got {images.dtype} {images.shape}")
    if batch < 1:
        raise ValueError(f"batch: expected at least 1, got {batch}")
    if device is None:
        device = next((t.device for t in (*net.parameters(), *net.buffers())), torch.device("cpu"))
    net.to(device)
    modes = {module: module.training for module in net.modules()}  # each its own: parts of a net may be frozen in evaluation mode
    net.eval()
    out = ()
    try:
        with torch.inference_mode():
            for start in range(0, len(images), batch):
                pixels = torch.tensor(images[start: start + batch]).permute(0, 3, 1, 2).contiguous()
                maps = list(net(pixels.to(device)))
                for i, stride in enumerate(getattr(net, "strides", ())):
                    height, width = (-(-n // stride) for n in images.shape[1:3])
                    maps[i] = maps[i][..., :height, :width]
                picked = [m.flatten(2).transpose(1, 2).float().cpu().numpy() for m in pick(maps)]
                out = out or tuple(np.empty((len(images), *part.shape[1:]), np.float32) for part in picked)
                for whole, part in zip(out, picked):
                    whole[start: start + batch] = part
    finally:
        for module, training in modes.items():
            module.training = training
    return out


def _stage(maps: list[Tensor], stage: int) -> Tensor:
    if not -len(maps) <= stage < len(maps):
        raise ValueError(f"stage {stage}: the net has {len(maps)} stages, 0 to {len(maps) - 1}")
    return maps[stage]
