"""From an image to logits, a mask and image-level labels; one code for evaluation and inference, with bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.data.labels import LabelMap
from cfnseg.engine.checkpoint import Weights, load
from cfnseg.errors import UserError
from cfnseg.models.cfn import Output
from cfnseg.ops import dense_scores, stride_of
from cfnseg.ops.lc_fuse import hat, read_grid

MAX_PIXELS = 1024 * 2048  # an image up to this size is seen whole, a larger one through windows
WINDOW, OVERLAP = 1024, 128  # both divisible by 32, so that a window's cells are cells of the whole image


@torch.inference_mode()
def whole_logits(model: nn.Module, image: Tensor, max_pixels: int = MAX_PIXELS) -> Output:
    """Logits of one image of any size.

    Args:
        model: a segmentation model in eval mode, on ``image``'s device. Its ``test_scale``, if it has one, is the factor by
            which the image is resized first.
        image: (3, H, W) uint8 RGB. Sides under 32 are padded by their border for the model and cropped again.
        max_pixels: larger images are seen through overlapping windows of 1024 x 1024, each with its region, blended with
            weights that fall towards the windows' rims; peak memory then hardly grows with the image.

    Returns:
        `Output` with pixel (1, C, ceil(H / s), ceil(W / s)) and image (1, C); through windows, a class's image logit is its
        largest over the windows.
    """
    scale = getattr(model, "test_scale", 1.0)
    if scale == 1:
        return _logits(model, image, max_pixels)
    size = tuple(image.shape[-2:])
    resized = tuple(max(1, round(n * scale)) for n in size)
    smaller = F.interpolate(image[None].float(), resized, mode="bilinear", align_corners=False, antialias=scale < 1)
    output = _logits(model, smaller.round().clamp(0, 255).byte()[0], max_pixels)
    return Output(_resample(output.pixel, resized, size), output.image)


def _resample(pixel: Tensor, resized: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Logits (1, C, h, w) of a resized image, read bilinearly at the cells of the original, at a stride no coarser."""
    coarse = stride_of(pixel, resized)
    stride = 2 ** int(math.log2(max(1.0, coarse * min(n / r for n, r in zip(size, resized)))))
    matrices = []
    for original, other, knots in zip(size, resized, pixel.shape[-2:]):
        cells = -(-original // stride)
        stop = pixel.new_tensor([cells * stride * other / original / (knots * coarse)]).float()
        matrices.append(hat(torch.zeros_like(stop), stop, cells, knots)[0])
    return read_grid(pixel[0].float(), *matrices)[None]


def _logits(model: nn.Module, image: Tensor, max_pixels: int) -> Output:
    height, width = image.shape[-2:]
    if min(height, width) < 32:
        padded = F.pad(image[None].float(), (0, max(0, 32 - width), 0, max(0, 32 - height)), mode="replicate")
        region = torch.tensor([[0, 0, padded.shape[-1] / width, padded.shape[-2] / height]], device=image.device)
        output = model(padded.byte(), region)
        stride = stride_of(output.pixel, tuple(padded.shape[-2:]))
        return Output(output.pixel[..., : -(-height // stride), : -(-width // stride)], output.image)
    if height * width <= max_pixels:
        return model(image[None])
    total = weight = top = None
    for y in _starts(height):
        for x in _starts(width):
            window = image[:, y : y + WINDOW, x : x + WINDOW]
            h, w = window.shape[-2:]
            region = torch.tensor([[x / width, y / height, (x + w) / width, (y + h) / height]], device=image.device)
            output = model(window[None], region)
            stride = stride_of(output.pixel, (h, w))
            if total is None:
                cells = -(-height // stride), -(-width // stride)
                total = torch.zeros(1, output.pixel.shape[1], *cells, device=image.device)
                weight = torch.zeros(cells, device=image.device)
            rim = _ramp(output.pixel.shape[2], image)[:, None] * _ramp(output.pixel.shape[3], image)
            place = slice(y // stride, y // stride + rim.shape[0]), slice(x // stride, x // stride + rim.shape[1])
            total[0, :, place[0], place[1]] += output.pixel[0].float() * rim
            weight[place] += rim
            top = output.image if top is None else torch.maximum(top, output.image)
    return Output(total / weight, top)


def _starts(length: int) -> list[int]:
    """Where windows start: steps of WINDOW - OVERLAP; the last is moved back to fit, on a multiple of 32."""
    last = max(0, -(-(length - WINDOW) // 32) * 32)
    return sorted({min(s, last) for s in range(0, max(1, length - OVERLAP), WINDOW - OVERLAP)})


def _ramp(cells: int, like: Tensor) -> Tensor:
    """1 inside, falling linearly to near 0 over the last cells towards either end, so that seams do not show."""
    place = torch.arange(cells, device=like.device) + 0.5
    return torch.minimum(place, cells - place).div(16).clamp(max=1)


def pick_device(name: str) -> torch.device:
    """The device called "auto" (CUDA where there is one), "cpu" or "cuda"; UserError for another or one that is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {name!r} is unknown; there are auto, cpu and cuda", code=2)
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is available; use --device cpu", code=2)
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        mask: (H, W) uint8 train ids; `LabelMap.decode` gives raw ids.
        confidence: (H, W) float32 softmax probability of each pixel's class.
        present: {class name: probability that the class is anywhere in the image}, the most likely first.
    """

    mask: np.ndarray
    confidence: np.ndarray
    present: dict[str, float]


class Predictor:
    """A trained model that takes arrays and gives arrays.

    Args:
        weights: a weights file, or what `cfnseg.load` gave.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".

    Raises:
        UserError: the weights cannot be used.
    """

    def __init__(self, weights: str | Path | Weights, device: str = "auto") -> None:
        loaded = weights if isinstance(weights, Weights) else load(weights)
        if loaded.settings.level != "pixel":
            raise UserError(f"{weights} is an image-level net and makes no masks", code=2)
        self.device = pick_device(device)
        self.model = loaded.model.to(self.device, memory_format=torch.channels_last).eval()
        self.labels: LabelMap = loaded.labels

    def __call__(self, image: np.ndarray) -> Prediction:
        """Predict one image.

        Args:
            image: (H, W, 3) uint8 RGB, any H, W >= 1.

        Raises:
            ValueError: another shape or dtype.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image: expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
        tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).to(self.device)
        output = whole_logits(self.model, tensor)
        mask, confidence = dense_scores(output.pixel, image.shape[:2])
        chances = output.image[0].float().sigmoid().tolist()
        order = sorted(zip(self.labels.names, chances), key=lambda pair: -pair[1])
        return Prediction(mask[0].cpu().numpy(), confidence[0].cpu().numpy(), dict(order))
