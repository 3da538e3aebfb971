"""Training transforms, the only importer of albumentations."""

from __future__ import annotations

import importlib.metadata
import math
from typing import NamedTuple

import numpy as np

from cfnseg.config import Data
from cfnseg.data.labels import IGNORE
from cfnseg.errors import UserError


def _refuse_agpl() -> None:
    """albumentationsx is AGPL and shares albumentations' import name, so only its distribution name gives it away."""
    try:
        version = importlib.metadata.version("albumentationsx")
    except importlib.metadata.PackageNotFoundError:
        return
    raise UserError(f"albumentationsx {version} (AGPL) is installed and shadows albumentations; "
                    "pip uninstall albumentationsx && pip install --force-reinstall albumentations==2.0.8")


_refuse_agpl()
import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look for updates at import
import albumentations as A


class Sample(NamedTuple):
    """One training sample.

    Attributes:
        image: (3, h, w) uint8 RGB.
        mask: (h, w) uint8 train ids, 255 = ignore; padding is ignored.
        region: (4,) float32 x0, y0, x1, y1: where the crop lies in the full image as it is shown (mirrored if the crop is).
        name: the image's name.
    """

    image: np.ndarray
    mask: np.ndarray
    region: np.ndarray
    name: str


class TrainTransform:
    """Random scale, crop (padded where the image is smaller), mirror and colour jitter.

    Args:
        settings: crop, scale, flip, photometric.
        fill: (r, g, b) of padding, the encoder's mean colour.
    """

    def __init__(self, settings: Data, fill: tuple[int, int, int] = (124, 116, 104)) -> None:
        height, width = settings.crop
        jitter = 0.8 * settings.photometric
        low, high = settings.scale
        self.least = math.ceil(1 / low)  # a shorter side would be scaled to nothing
        self.compose = A.Compose([
            A.RandomScale((low - 1, high - 1), area_for_downscale="image", p=1),
            A.RandomCrop(height, width, pad_if_needed=True, pad_position="random", fill=fill, fill_mask=IGNORE),
            A.HorizontalFlip(p=0.5 * settings.flip),
            A.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter, hue=0.2 * jitter, p=0.8 * bool(jitter)),
        ], save_applied_params=True)

    def __call__(self, image: np.ndarray, mask: np.ndarray, name: str, seed: int) -> Sample:
        """Make a sample of an (H, W, 3) image and its (H, W) train ids; the same ``seed`` gives the same sample."""
        self.compose.set_random_seed(seed)
        image, mask = (_at_least(array, self.least) for array in (image, mask))
        result = self.compose(image=image, mask=mask)
        region = crop_region(image.shape[:2], dict(result["applied_transforms"]))
        pixels = np.ascontiguousarray(result["image"].transpose(2, 0, 1))
        return Sample(pixels, np.ascontiguousarray(result["mask"]), region, name)


def _at_least(array: np.ndarray, side: int) -> np.ndarray:
    """An image or mask whose shorter sides are made ``side`` long by its last row or column again."""
    more = [(0, max(0, side - n)) for n in array.shape[:2]] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, more, mode="edge") if any(map(max, more)) else array


def crop_region(size: tuple[int, int], applied: dict[str, dict]) -> np.ndarray:
    """Where a crop lies in the full image, from the parameters that albumentations drew.

    Args:
        size: (H, W) of the original image.
        applied: parameters by transform name.

    Returns:
        (4,) float32 x0, y0, x1, y1, 1 = the full width or height; outside [0, 1] where the crop is padding.
    """
    scale = applied.get("RandomScale", {}).get("scale", 1.0)
    height, width = (int(n * scale) for n in size)  # as A.RandomScale rounds
    x0, y0, x1, y1 = applied["RandomCrop"]["crop_coords"]
    pad = applied["RandomCrop"]["pad_params"] or {"pad_left": 0, "pad_top": 0}
    left, top = pad["pad_left"], pad["pad_top"]
    region = np.array([(x0 - left) / width, (y0 - top) / height, (x1 - left) / width, (y1 - top) / height], np.float32)
    if "HorizontalFlip" in applied:
        region[[0, 2]] = 1 - region[[2, 0]]
    return region


class LabelledSample(NamedTuple):
    """One training sample of an image-level net.

    Attributes:
        image: (3, h, w) uint8 RGB.
        target: () int64 class.
        name: the image's name.
    """

    image: np.ndarray
    target: np.ndarray
    name: str


class ImageTransform:
    """For image-level nets: to the crop's size, at random in training.

    Training cuts a random part that covers a share of the area in ``settings.scale`` (Szegedy et al. 2015), or with scale
    (1, 1) a random window of the image made just large enough; then mirror and colour jitter. Otherwise the middle. An
    image that has the crop's size already is left as it is.

    Args:
        settings: crop, scale, flip, photometric.
        train: random or not.
    """

    def __init__(self, settings: Data, train: bool) -> None:
        self.size = height, width = tuple(settings.crop)
        low, high = settings.scale
        jitter = 0.8 * settings.photometric
        cover = [A.SmallestMaxSize(max_size_hw=(height, width)), A.PadIfNeeded(height, width)]
        if train and low < 1:
            steps = [A.RandomResizedCrop((height, width), scale=(low, min(high, 1.0)))]
        else:
            steps = [*cover, A.RandomCrop(height, width) if train else A.CenterCrop(height, width)]
        random = [A.HorizontalFlip(p=0.5 * settings.flip)] * settings.flip
        random += [A.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter, hue=0.2 * jitter, p=0.8)] * bool(jitter)
        self.fixed = not (train and (random or low < 1))
        self.compose = A.Compose(steps + random * train)

    def __call__(self, image: np.ndarray, target: int, name: str, seed: int = 0) -> LabelledSample:
        """Make a sample of an (H, W, 3) image; the same ``seed`` gives the same sample."""
        if not (self.fixed and image.shape[:2] == self.size):
            self.compose.set_random_seed(seed)
            image = self.compose(image=image)["image"]
        return LabelledSample(np.ascontiguousarray(image.transpose(2, 0, 1)), np.asarray(target), name)
