"""Dice, thresholds of probabilities, and scores of single images, for classes that may overlap.

Dice_c = 2 TP / (2 TP + FP + FN), also called F1; Dice = 2 IoU / (1 + IoU). Where a class is neither
in the truth nor predicted it has no Dice (nan); predicted where the truth is empty, it has 0. The
mean over images leaves the first kind out. MONAI's DiceMetric has 1 for it with ignore_empty=False,
and leaves both kinds out with ignore_empty=True, which no false alarm lowers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cfnseg.data.labels import IGNORE
from cfnseg.metrics.confusion import known_mean, mean_iou
from cfnseg.metrics.uncertainty import percentiles, resampled

GRID = np.linspace(0.05, 0.95, 19).round(2).astype(np.float32)  # thresholds that are tried


def dice_of(counts: np.ndarray) -> np.ndarray:
    """(..., C) float64 Dice from (..., 3, C) true positives, truth and predicted pixels; nan where
    both are empty."""
    hit, truth, predicted = np.moveaxis(counts, -2, 0).astype(np.float64)
    total = truth + predicted
    return np.divide(2 * hit, total, out=np.full(total.shape, np.nan), where=total > 0)


def grid_counts(chances: Tensor, layers: Tensor) -> Tensor:
    """Pixels counted at every threshold of `GRID`, in one pass and exactly.

    Args:
        chances: (C, H, W) float32 probabilities.
        layers: (H, W, C) uint8 on the same device: 1, 0, 255 = ignored.

    Returns:
        (19, 3, C) int64 true positives, truth and predicted pixels; a pixel is predicted where its
        probability is at least the threshold.
    """
    bins, grid = len(GRID) + 1, torch.from_numpy(GRID).to(chances.device)
    cells = []
    for chance, truth in zip(chances, layers.permute(2, 0, 1)):  # one at a time, to save memory
        reached = torch.bucketize(chance.contiguous(), grid, right=True, out_int32=True)
        kind = torch.where(truth == IGNORE, 2, truth.int())
        cells.append(torch.bincount((bins * kind + reached).flatten(), minlength=3 * bins))
    no, yes, _ = torch.stack(cells).view(-1, 3, bins).unbind(1)
    above = [(one.sum(1, keepdim=True) - one.cumsum(1))[:, :-1] for one in (yes, no)]
    total = yes.sum(1, keepdim=True).expand_as(above[0])
    return torch.stack([above[0], total, above[0] + above[1]]).permute(2, 0, 1)


def mask_counts(masks: Tensor, layers: Tensor) -> np.ndarray:
    """(3, C) int64 true positives, truth and predicted pixels of masks (C, H, W) bool, given layers
    (H, W, C) uint8 on the same device."""
    truth = layers.permute(2, 0, 1)
    here = truth == 1
    parts = (masks & here, here, masks & (truth != IGNORE))
    return torch.stack([part.sum((1, 2)) for part in parts]).cpu().numpy()


def best_thresholds(counts: np.ndarray) -> np.ndarray:
    """(C,) float64 thresholds with the best Dice, from (19, 3, C) counts at each of `GRID`.

    Of equals, the one next to 0.5. A class without a true pixel has 0.5.
    """
    order = np.argsort(abs(GRID.astype(np.float64) - 0.5), kind="stable")
    best = order[np.argmax(np.nan_to_num(dice_of(counts))[order], 0)]
    grid = GRID.astype(np.float64).round(2)
    return np.where(counts[0, 1] > 0, grid[best], 0.5)


def image_dice(counts: np.ndarray) -> np.ndarray:
    """(images,) mean Dice over the classes of an image, from (images, 3, C) counts; nan for an
    image without a class in truth and prediction."""
    return mean_iou(dice_of(counts))


def mean_interval(
    values: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Ends of the 95 % bootstrap interval of the mean of (images,) values without their nans."""
    known = ~np.isnan(values)
    pairs = np.stack([np.where(known, values, 0), known], 1)
    draws = [
        np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
        for total, count in (sums.T for sums in resampled(pairs, resamples, seed))
    ]
    low, high = percentiles(np.concatenate([np.empty(0), *draws]))
    return float(low), float(high)


def dice_interval(
    counts: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The same of the mean Dice over classes, of (images, 3, C) counts."""
    draws = [mean_iou(dice_of(sums)) for sums in resampled(counts, resamples, seed)]
    low, high = percentiles(np.concatenate([np.empty(0), *draws]))
    return float(low), float(high)


def mean_dice(counts: np.ndarray) -> float:
    """The mean Dice over the classes of (3, C) counts; nan without any."""
    return known_mean(dice_of(counts))
