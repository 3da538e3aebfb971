"""Why this class at this pixel: the exact part of each branch in every class's logit there."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cfnseg.inference.augment import view_logits
from cfnseg.inference.explanation import SplitCFN, check_explainable
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.inference.windows import blend_weights, device_of, starts
from cfnseg.models.segmenter import as_segmenter

COARSEST = 32  # pixels a cell has at most


class PixelParts(NamedTuple):
    """The logits z of one pixel, split: z_c is the sum of column c.

    Attributes:
        names: of the branches, "stride 2", ... "context", and "bias".
        parts: (S + 1, C) float64, in logits.
    """

    names: list[str]
    parts: np.ndarray

    @property
    def logits(self) -> np.ndarray:
        """(C,) float64; the largest is the pixel's class in the mask."""
        return self.parts.sum(0)


@torch.inference_mode()
def pixel_parts(
    model: nn.Module, image: Tensor, x: int, y: int, inference: Inference = PLAIN
) -> PixelParts:
    """Split the logits of one pixel, at its place between the four nearest cells.

    Upsampling and the blending of windows are linear, so the parts pass them as logits do. Only
    the windows around the pixel are computed: at most four, however large the image is.

    Args:
        model: a `CFN`.
        image: (3, H, W) uint8 RGB.
        x, y: column and row, 0 <= x < W, 0 <= y < H.
        inference: windows and one scale, as for `explain`; computed in float32.

    Raises:
        UserError: see `check_explainable`.
    """
    check_explainable(model, inference)
    split, size = as_segmenter(SplitCFN(model)), tuple(image.shape[-2:])
    device, place = device_of(model, image), (y, x)
    window = inference.window_for(size, split.test_scale)
    begins = [starts(n, w, inference.overlap) for n, w in zip(size, window)]
    near = [
        [i for i, begin in enumerate(axis) if begin - COARSEST <= at < begin + w + COARSEST]
        for axis, w, at in zip(begins, window, place)
    ]
    total = torch.zeros((), dtype=torch.float64)
    for chosen in product(*near):
        top, left = (axis[i] for axis, i in zip(begins, chosen))
        crop = image[None, :, top : top + window[0], left : left + window[1]].to(device)
        bottom, right = top + crop.shape[2], left + crop.shape[3]
        region = [[left / size[1], top / size[0], right / size[1], bottom / size[0]]]
        scales = (inference.scales[0] * split.test_scale,)
        cells, _, stride = view_logits(split, crop, torch.tensor(region, device=device), scales)
        cells = cells[0].double().cpu()
        for axis in (0, 1):
            bells = blend_weights(begins[axis], size[axis], window[axis], stride)[chosen[axis]]
            lerp = torch.zeros(len(bells), dtype=torch.float64)
            for cell, share in _lerp(place[axis], size[axis], stride):
                inside = cell - begins[axis][chosen[axis]] // stride
                if 0 <= inside < len(bells):
                    lerp[inside] += share
            cells = torch.tensordot(cells, lerp * bells, dims=([1], [0]))
        total = total + cells
    names = [*model.branch_names, "bias"]
    return PixelParts(names, total.view(len(names), -1).numpy())


def _lerp(at: int, length: int, stride: int) -> list[tuple[int, float]]:
    """The two cells of an axis that a pixel's centre lies between, and the share of each."""
    last = -(-length // stride) - 1
    middle = max(0.0, (at + 0.5) / stride - 0.5)
    cell = int(middle)
    return [(cell, 1 - middle + cell), (min(cell + 1, last), middle - cell)]
