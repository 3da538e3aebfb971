"""The speed of samples, of updates and of scoring mask files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from torch import nn

from cfnseg.config import Data, Model, Optim
from cfnseg.data.dataset import FileDataset
from cfnseg.data.files import read_mask
from cfnseg.data.formats.cityscapes import LABELS
from cfnseg.data.loader import parallel
from cfnseg.data.transforms import TrainTransform
from cfnseg.evaluation.mask_files import evaluate_masks
from cfnseg.lab.timing import in_turns
from cfnseg.models.build import build_model
from cfnseg.training.optim import build_optimizer

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")



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


Pairs = list[tuple[Path, Path]]


def drawn_maps(folder: Path, count: int, height: int, width: int) -> Pairs:
    """Truth and predicted label-id PNGs of smooth regions in Cityscapes' 19 classes; a tenth of each truth is ignored."""
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(count):
        fields = [cv2.resize(rng.standard_normal((16, 32, 19)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)]
        fields.append(fields[0] + 0.3 * cv2.resize(rng.standard_normal((64, 128, 19)).astype(np.float32), (width, height)))
        truth, prediction = (field.argmax(2).astype(np.uint8) for field in fields)
        truth[: height // 10] = 255
        pairs.append((folder / f"{i}.png", folder / f"{i}_mask.png"))
        for path, mask in zip(pairs[-1], (truth, prediction)):
            LABELS.write(path, mask)
    return pairs


def _decode(pair: tuple[Path, Path]) -> int:
    return sum(int(read_mask(path)[0, 0]) for path in pair)


def measure(pairs: Pairs, maps: int, workers: int, details: bool, clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds to decode ``maps`` pairs of files, and to decode and score them; ``pairs`` are used in turn."""
    many = [pairs[i % len(pairs)] for i in range(maps)]
    start = clock()
    for _ in parallel(_decode, many, workers):
        pass
    middle = clock()
    truth = FileDataset([(path, path) for path, _ in many], LABELS)
    evaluate_masks(truth, [path for _, path in many], workers, details)
    return middle - start, clock() - middle


def line(what: str, ways: tuple[str, str], times: np.ndarray) -> str:
    """Mean and median of each way in ms, and the median of the rounds' ratios; ``times`` is (rounds, 2) seconds."""
    parts = (f"{way} {t.mean():.1f} ms (median {np.median(t):.1f})" for way, t in zip(ways, times.T * 1000))
    return f"{what}: {', '.join(parts)}, ratio {np.median(times[:, 1] / times[:, 0]):.2f}"
