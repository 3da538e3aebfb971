"""Time of training samples, parameter updates and scoring, each against a plain way."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A
import cv2
import numpy as np
import torch

from cfnseg.config import Data, Model, Optim
from cfnseg.data.dataset import FileDataset
from cfnseg.data.files import read_mask
from cfnseg.data.formats.cityscapes import LABELS
from cfnseg.data.loader import parallel
from cfnseg.data.transforms import TrainTransform
from cfnseg.evaluation.mask_files import evaluate_masks
from cfnseg.models.build import build_model
from cfnseg.timing import interleaved
from cfnseg.training.optim import build_optimizer

FILES = 20  # pairs that are drawn
Pairs = list[tuple[Path, Path]]


def describe(what: str, ways: tuple[str, str], times: np.ndarray) -> str:
    """Mean and median of each way in ms, and the median ratio of the rounds; times (rounds, 2)."""
    parts = (
        f"{way} {t.mean():.1f} ms (median {np.median(t):.1f})"
        for way, t in zip(ways, times.T * 1000)
    )
    return f"{what}: {', '.join(parts)}, ratio {np.median(times[:, 1] / times[:, 0]):.2f}"


def whole_then_crop(settings: Data) -> Callable[[np.ndarray, np.ndarray, int], object]:
    """The usual way: resize the whole image, then crop, mirror and jitter it."""
    low, high = settings.scale
    reach = 0.8 * settings.photometric
    crop = A.RandomCrop(*settings.crop, pad_if_needed=True, pad_position="random", fill_mask=255)
    compose = A.Compose(
        [
            A.RandomScale((low - 1, high - 1), area_for_downscale="image", p=1),
            crop,
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(reach, reach, reach, 0.2 * reach, p=0.8),
        ]
    )

    def sample(image: np.ndarray, mask: np.ndarray, seed: int) -> object:
        compose.set_random_seed(seed)
        result = compose(image=image, mask=mask)
        return np.ascontiguousarray(result["image"].transpose(2, 0, 1)), result["mask"]

    return sample


def time_samples(size: tuple[int, int], crop: tuple[int, int], samples: int) -> np.ndarray:
    """(samples, 2) seconds of a sample in one thread: resize then crop, and cut then resize."""
    cv2.setNumThreads(0)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 128, 3), dtype=np.uint8)
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)
    mask = rng.integers(0, 19, (64, 128), dtype=np.uint8)
    mask = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
    settings = Data(crop=crop)
    usual, ours = whole_then_crop(settings), TrainTransform(settings)
    seeds, again = (iter(range(samples + 1)) for _ in range(2))
    works = [lambda: usual(image, mask, next(seeds)), lambda: ours(image, mask, "", next(again))]
    return interleaved(works, samples)


def time_updates(name: str, rounds: int, device: str = "cpu") -> tuple[np.ndarray, int]:
    """Update CFN's parameters by torch's default optimizer and by the fused one.

    Returns:
        (rounds, 2) seconds, and the number of tensors.
    """
    works = []
    for fused in (False, True):
        model = build_model(Model(encoder_weights=None), 19).to(device)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer = build_optimizer(model, Optim(name=name))
        if not fused:
            optimizer.state.clear()
            for group in optimizer.param_groups:
                group["fused"] = None
        works.append(optimizer.step)
    return interleaved(works, rounds, device == "cuda"), sum(1 for _ in model.parameters())


def time_scoring(maps: int, size: tuple[int, int], workers: int, rounds: int, details: bool) -> str:
    """Decode ``maps`` pairs of PNGs, and decode and score them; the times and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = drawn_maps(Path(folder), FILES, *size)
        pairs = [drawn[i % FILES] for i in range(maps)]
        truth, predictions = FileDataset([(t, t) for t, _ in pairs], LABELS), [p for _, p in pairs]

        def decode() -> None:
            for _ in parallel(_decode, pairs, workers):
                pass

        score = functools.partial(evaluate_masks, truth, predictions, workers, details)
        times = interleaved([decode, score], rounds)
    ratio = np.median(times[:, 1] / times[:, 0])
    decoding, scoring = np.median(times, 0) / maps * 1000
    return (
        f"{maps} maps of {size[0]} x {size[1]}, {workers} processes: decoding both PNGs "
        f"{decoding:.1f} ms a map, scoring {scoring:.1f} ms (reading included), ratio {ratio:.2f}"
    )


def drawn_maps(folder: Path, count: int, height: int, width: int) -> Pairs:
    """Truth and predicted label-id PNGs of smooth regions in Cityscapes' 19 classes.

    A tenth of each truth is ignored.
    """
    rng = np.random.default_rng(0)

    def field(rows: int) -> np.ndarray:
        noise = rng.standard_normal((rows, 2 * rows, 19)).astype(np.float32)
        return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)

    pairs = []
    for i in range(count):
        scores = field(16)
        truth, prediction = scores.argmax(2), (scores + 0.3 * field(64)).argmax(2)
        truth[: height // 10] = 255
        pairs.append((folder / f"{i}.png", folder / f"{i}_mask.png"))
        for path, mask in zip(pairs[-1], (truth, prediction)):
            LABELS.write(path, mask.astype(np.uint8))
    return pairs


def _decode(pair: tuple[Path, Path]) -> int:
    return sum(int(read_mask(path)[0, 0]) for path in pair)
