"""From an image to the masks of classes that may overlap, by sigmoid outputs and thresholds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.inference.windows import Strip, device_of, strips
from cfnseg.models.segmenter import as_segmenter


class Layered(NamedTuple):
    """One image, segmented; tensors are on the model's device.

    Attributes:
        masks: (C, H, W) bool: is the pixel of the class?
        confidence: (H, W) float32, or None if it was not asked for. A decision's probability is p
            in the mask of a class and 1 - p outside; this is the least of the classes'.
        presence: (C,) float64 probability of each class to be anywhere in the image.
    """

    masks: Tensor
    confidence: Tensor | None
    presence: Tensor


@torch.inference_mode()
def segment_layers(
    model: nn.Module,
    image: Tensor,
    thresholds: np.ndarray,
    inference: Inference = PLAIN,
    *,
    confidence: bool = False,
    each: Callable[[Strip, Tensor], object] | None = None,
) -> Layered:
    """`cfnseg.inference.predictor.segment` for sigmoid outputs.

    Args:
        model: a segmentation model in eval mode, or any module that `as_segmenter` takes.
        image: (3, H, W) uint8 RGB.
        thresholds: (C,) probabilities from which on a pixel is of a class.
        inference: windows, scales, mirroring.
        confidence: give it too.
        each: gets every strip, from the top, and its pixels' logits (C, rows, W).
    """
    model = as_segmenter(model)
    size, device = tuple(image.shape[-2:]), device_of(model, image)
    masks = torch.empty((len(thresholds), *size), dtype=torch.bool, device=device)
    least = torch.empty(size, device=device) if confidence else None
    limits = torch.tensor(thresholds, dtype=torch.float32, device=device)[:, None, None]
    for strip in strips(model, image, inference, sigmoid=True):
        logits = strip.pixels()
        chance = logits.sigmoid()
        decided = masks[:, strip.rows] = chance >= limits
        if least is not None:
            least[strip.rows] = torch.where(decided, chance, 1 - chance).amin(0)
        if each:
            each(strip, logits)
    return Layered(masks, least, strip.image[0].double().sigmoid())
