"""What a training step costs beside the network: its samples and its update, against the usual way."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A
import cv2
import numpy as np
import torch
from torch import nn

from cfnseg.benchmark.timing import in_turns
from cfnseg.config import Data, Model, Optim
from cfnseg.data.transforms import TrainTransform
from cfnseg.models.build import build_model
from cfnseg.training.optim import build_optimizer


def whole_then_crop(settings: Data) -> Callable[[np.ndarray, np.ndarray, int], object]:
    """The usual way, and the first edition's: resize all of the image, then crop, mirror and jitter it."""
    low, high = settings.scale
    reach = 0.8 * settings.photometric
    compose = A.Compose([
        A.RandomScale((low - 1, high - 1), area_for_downscale="image", p=1),
        A.RandomCrop(*settings.crop, pad_if_needed=True, pad_position="random", fill_mask=255),
        A.HorizontalFlip(p=0.5), A.ColorJitter(reach, reach, reach, 0.2 * reach, p=0.8)])

    def sample(image: np.ndarray, mask: np.ndarray, seed: int) -> object:
        compose.set_random_seed(seed)
        result = compose(image=image, mask=mask)
        return np.ascontiguousarray(result["image"].transpose(2, 0, 1)), result["mask"]

    return sample


def time_samples(size: tuple[int, int], crop: tuple[int, int], samples: int) -> np.ndarray:
    """Seconds of each sample in one process without threads, whole image first and window first; (samples, 2)."""
    cv2.setNumThreads(0)
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (64, 128, 3), dtype=np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(rng.integers(0, 19, (64, 128), dtype=np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    settings = Data(crop=crop)
    ours, theirs = TrainTransform(settings), whole_then_crop(settings)
    seeds = [iter(range(samples + 1)) for _ in range(2)]
    return in_turns([lambda: theirs(image, mask, next(seeds[0])), lambda: ours(image, mask, "", next(seeds[1]))], samples)


def time_updates(name: str, rounds: int, device: str = "cpu") -> tuple[np.ndarray, int]:
    """Seconds of each update of CFN's parameters by torch's default and by the fused one, (rounds, 2); how many tensors."""
    works = []
    for fused in (False, True):
        model = build_model(Model(encoder_weights=None), 19).to(device)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        works.append(_default(model, name) if not fused else build_optimizer(model, Optim(name=name)).step)
    return in_turns(works, rounds, device == "cuda"), sum(1 for _ in model.parameters())


def _default(model: nn.Module, name: str) -> Callable[[], object]:
    optimizer = build_optimizer(model, Optim(name=name))
    for group in optimizer.param_groups:
        group["fused"] = None
    optimizer.state.clear()
    return optimizer.step
