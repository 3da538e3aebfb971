"""The metric contract: one int64 confusion matrix over the split, ignored pixels left out, and what follows from it.

IoU_c = TP / (TP + FP + FN). mIoU is the mean over the classes with a non-empty union (a class that is neither in the truth
nor predicted has no IoU and shows "-"); the number of such classes is the divisor and is printed with the number. This is
what mmsegmentation, torchmetrics' Jaccard and the Cityscapes scripts count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cfnseg.data.labels import IGNORE
from cfnseg.metrics.pairs import pair_counts


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Count pixels by (truth, prediction).

    Args:
        truth: uint8 train ids of any shape; 255 is ignored.
        prediction: uint8 train ids 0..classes-1 of the same shape.
        classes: C, at most 255.

    Returns:
        (C, C) int64, rows = truth, columns = prediction.

    Raises:
        ValueError: shapes differ, or an id is out of range where it counts.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"prediction: expected shape {truth.shape}, got {prediction.shape}")
    counts = pair_counts(truth, prediction)
    matrix = counts[:classes, :classes]
    if matrix.sum() != truth.size - counts[IGNORE].sum():
        raise ValueError(f"truth and prediction: ids must be 0..{classes - 1} (truth also {IGNORE}), got truth up to "
                         f"{truth[truth != IGNORE].max(initial=0)} and prediction up to {prediction.max(initial=0)}")
    return matrix


def device_confusion_matrix(truth: Tensor, prediction: Tensor, classes: int) -> np.ndarray:
    """`confusion_matrix` of tensors on any device: they are counted there, and only C x C numbers come to the host.

    Args:
        truth, prediction: integers as for `confusion_matrix`, on one device.
        classes: C.

    Returns, raises: as `confusion_matrix`.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"prediction: expected shape {tuple(truth.shape)}, got {tuple(prediction.shape)}")
    cells = classes * classes  # those of the matrix, one for ignored pixels, one for ids out of range
    pairs = truth.long() * classes + prediction
    pairs = pairs.masked_fill((truth >= classes) | (prediction >= classes), cells + 1).masked_fill(truth == IGNORE, cells)
    counts = torch.bincount(pairs.flatten(), minlength=cells + 2).cpu().numpy()
    if counts[-1]:
        raise ValueError(f"truth and prediction: ids must be 0..{classes - 1} (truth also {IGNORE}), {counts[-1]} pixels are not")
    return counts[:cells].reshape(classes, classes)


def counts_of(matrix: np.ndarray) -> np.ndarray:
    """(3, C) int64 of a confusion matrix: true positives, truth pixels, predicted pixels per class."""
    return np.stack([np.diagonal(matrix), matrix.sum(1), matrix.sum(0)])


def iou_of(counts: np.ndarray) -> np.ndarray:
    """(..., C) float64 IoU from (..., 3, C) counts; nan where the union is empty."""
    hit, truth, predicted = np.moveaxis(counts, -2, 0).astype(np.float64)
    union = truth + predicted - hit
    return np.divide(hit, union, out=np.full_like(union, np.nan), where=union > 0)


@dataclass(frozen=True)
class Scores:
    """Scores of a split, all in 0..1; nan where nothing was counted.

    Attributes:
        miou: mean IoU over ``divisor`` classes.
        divisor: classes with a non-empty union.
        pixel_accuracy: share of counted pixels that are right.
        mean_accuracy: mean recall over the classes in the truth.
        iou, recall, precision: (C,) per class.
    """

    miou: float
    divisor: int
    pixel_accuracy: float
    mean_accuracy: float
    iou: np.ndarray
    recall: np.ndarray
    precision: np.ndarray


def scores_of(counts: np.ndarray) -> Scores:
    """The scores of (3, C) counts as `counts_of` gives them."""
    iou = iou_of(counts)
    hit, truth, predicted = counts.astype(np.float64)
    recall = np.divide(hit, truth, out=np.full_like(hit, np.nan), where=truth > 0)
    precision = np.divide(hit, predicted, out=np.full_like(hit, np.nan), where=predicted > 0)
    known = ~np.isnan(iou)
    return Scores(
        miou=float(iou[known].mean()) if known.any() else float("nan"),
        divisor=int(known.sum()),
        pixel_accuracy=float(hit.sum() / truth.sum()) if truth.sum() else float("nan"),
        mean_accuracy=float(recall[truth > 0].mean()) if (truth > 0).any() else float("nan"),
        iou=iou, recall=recall, precision=precision)
