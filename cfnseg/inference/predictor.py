"""From an image to a mask and the classes in it; evaluation and inference share this code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from cfnseg.data.bands import Bands
from cfnseg.data.labels import LabelMap
from cfnseg.errors import UserError
from cfnseg.inference.layer_masks import Layered, segment_layers
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.inference.windows import Strip, device_of, strips
from cfnseg.models.folding import folded
from cfnseg.models.segmenter import as_segmenter, bands_of
from cfnseg.models.weights import Weights, load


class Segmented(NamedTuple):
    """One image, segmented; tensors are on the model's device.

    Attributes:
        mask: (H, W) uint8 train ids.
        confidence: (H, W) float32 softmax probability of each pixel's class, or None if it was not
            asked for.
        presence: (C,) float64 probability of each class to be anywhere in the image, or None where
            nothing says it.
        loss: sum of the cross-entropy over the pixels of the truth that count; 0 without one.
    """

    mask: Tensor
    confidence: Tensor | None
    presence: Tensor | None
    loss: float


@torch.inference_mode()
def segment(
    model: nn.Module,
    image: Tensor,
    inference: Inference = PLAIN,
    *,
    truth: Tensor | None = None,
    confidence: bool = False,
    each: Callable[[Strip], object] | None = None,
) -> Segmented:
    """Segment one image of any size, in memory that hardly grows with it beyond what is returned.

    Args:
        model: a segmentation model in eval mode, or any module that `as_segmenter` takes.
        image: (3, H, W) uint8 RGB, or (C, H, W) of the model's bands; it may stay on the CPU,
            crops go to the model's device by themselves.
        inference: windows, scales, mirroring.
        truth: (H, W) train ids, 255 = ignore, for the loss.
        confidence: give each pixel's probability too.
        each: gets every strip of logits, from the top.
    """
    model = as_segmenter(model)
    size, device = tuple(image.shape[-2:]), device_of(model, image)
    mask = torch.empty(size, dtype=torch.uint8, device=device)
    sure = torch.empty(size, device=device) if confidence else None
    loss = 0.0
    for strip in strips(model, image, inference):
        if sure is None:
            mask[strip.rows] = strip.classes()
        else:
            mask[strip.rows], sure[strip.rows] = strip.scores()
        if each:
            each(strip)
        if truth is not None:
            loss += float(strip.cross_entropy(truth))
    return Segmented(mask, sure, strip.image[0].double().sigmoid(), loss)


def pick_device(name: str) -> torch.device:
    """The device called "auto" (CUDA where there is one), "cpu" or "cuda".

    UserError for another or one that is not there.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {name!r} is unknown; there are auto, cpu and cuda", code=2)
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is available; use --device cpu", code=2)
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Prediction:
    """A model's result for one image.

    Attributes:
        mask: (H, W) uint8 train ids; `LabelMap.decode` gives raw ids. Of sigmoid outputs
            (C, H, W) bool, the mask of each class by its threshold.
        confidence: (H, W) float32 softmax probability of each pixel's class, see
            `cfnseg.inference.layer_masks.Layered` for sigmoid outputs.
        present: {class name: probability that the class is anywhere in the image}, the most likely
            first; empty where nothing says it.
    """

    mask: np.ndarray
    confidence: np.ndarray
    present: dict[str, float]


class Predictor:
    """A trained model that takes arrays and gives arrays.

    Args:
        weights: a weights file, or what `cfnseg.load` gave.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        inference: windows, scales, mirroring, precision.
        compile: torch.compile the network: slow for the first images and for each new size, faster
            afterwards on a GPU.

    Raises:
        UserError: the weights cannot be used.

    Example:
        >>> import cfnseg
        >>> predict = cfnseg.Predictor("runs/example/best.safetensors", device="cpu")
        >>> result = predict(cfnseg.read_image("photo.jpg"))  # (192, 256, 3) uint8
        >>> result.mask.shape, result.mask.dtype.name, len(result.present)
        ((192, 256), 'uint8', 8)
    """

    def __init__(
        self,
        weights: str | Path | Weights,
        device: str = "auto",
        inference: Inference = PLAIN,
        compile: bool = False,
    ) -> None:
        loaded = weights if isinstance(weights, Weights) else load(weights)
        if loaded.settings.level != "pixel":
            what = "this" if weights is loaded else weights
            raise UserError(f"{what} is a classification model and makes no masks", code=2)
        self.device = pick_device(device)
        model = folded(loaded.model).to(self.device, memory_format=torch.channels_last).eval()
        self.model = torch.compile(model) if compile else model
        self.labels: LabelMap = loaded.labels
        self.bands, self.thresholds = bands_of(loaded.model), loaded.thresholds
        self.inference = inference

    def __call__(
        self, image: np.ndarray | Image.Image, each: Callable[[Strip], object] | None = None
    ) -> Prediction:
        """Predict one image.

        Args:
            image: (H, W, 3) uint8 RGB, any H, W >= 1; or a PIL image, seen as RGB and upright by
                its EXIF orientation. Of a model of bands: (H, W, C), in their number and type.
            each: gets every strip of logits, from the top.

        Raises:
            ValueError: another kind, shape or dtype.
        """
        tensor = torch.from_numpy(as_array(image, self.bands)).permute(2, 0, 1)
        result: Segmented | Layered
        if self.thresholds is None:
            result = segment(self.model, tensor, self.inference, confidence=True, each=each)
            mask = result.mask
        else:
            only = (lambda strip, _: each(strip)) if each else None
            result = segment_layers(
                self.model, tensor, self.thresholds, self.inference, confidence=True, each=only
            )
            mask = result.masks
        assert result.presence is not None and result.confidence is not None
        order = sorted(zip(self.labels.names, result.presence.tolist()), key=lambda pair: -pair[1])
        return Prediction(mask.cpu().numpy(), result.confidence.cpu().numpy(), dict(order))

    def probabilities(self, image: np.ndarray | Image.Image) -> np.ndarray:
        """(C, H, W) float32: the probability of every class at every pixel of an image, as
        `__call__` takes it, by softmax or, of sigmoid outputs, of each class alone."""
        parts: list[np.ndarray] = []
        self(image, lambda strip: parts.append(strip.probabilities().cpu().numpy()))
        return np.concatenate(parts, 1)


def as_array(image: np.ndarray | Image.Image, bands: Bands | None) -> np.ndarray:
    """The image as a contiguous array, as `rgb_array`, or of ``bands``; ValueError for another."""
    if bands is None:
        return rgb_array(image)
    if isinstance(image, np.ndarray) and bands.fit(image):
        return np.ascontiguousarray(image)
    raise ValueError(
        f"image: expected an array (H, W, {len(bands)}) {bands.type} with H, W >= 1, "
        f"got {_described(image)}"
    )


def rgb_array(image: np.ndarray | Image.Image) -> np.ndarray:
    """The image as a contiguous array (H, W, 3) uint8; see `Predictor.__call__`."""
    if isinstance(image, Image.Image) and not image.mode.startswith(
        ("I", "F")
    ):  # whose conversion would cut values off
        image = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    fits = (
        isinstance(image, np.ndarray)
        and image.ndim == 3
        and image.shape[2] == 3
        and image.dtype == np.uint8
    )
    if not fits or 0 in image.shape:
        raise ValueError(
            "image: expected an array (H, W, 3) uint8 RGB with H, W >= 1, or a PIL image, "
            f"got {_described(image)}"
        )
    return np.ascontiguousarray(image)


def _described(image: object) -> str:
    """What the caller gave in place of an image, and how to make it one."""
    if isinstance(image, str | Path):
        return f"the path {str(image)!r}; cfnseg.data.files.read_image reads it"
    if isinstance(image, Image.Image):
        return f"a PIL image of mode {image.mode}"
    if not isinstance(image, np.ndarray):
        return f"{type(image).__module__}.{type(image).__qualname__}"
    return f"{image.shape} {image.dtype}"
