"""The metric contract: one int64 confusion matrix over the split, ignored pixels left out.

IoU_c = TP / (TP + FP + FN). mIoU is the mean over the classes with a non-empty union. A class that
is neither in the truth nor predicted has no IoU and shows "-". The number of classes in the mean is
its divisor and is printed with it. mmsegmentation, torchmetrics' Jaccard and the Cityscapes scripts
count the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from cfnseg.data.labels import IGNORE

STRIP = 1 << 24  # pixels counted at once: cv2 counts in float32, which is exact up to here


def pair_counts(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Count pixels by (first, second).

    Args:
        first, second: uint8 of the same shape.

    Returns:
        (256, 256) int64, rows = ``first``: np.bincount of 256 * first + second, in half its time.
    """
    pair = first.reshape(1, -1), second.reshape(1, -1)
    counts = np.zeros((256, 256), np.int64)
    for start in range(0, first.size, STRIP):
        strip = [ids[:, start : start + STRIP] for ids in pair]
        found = cv2.calcHist(strip, [0, 1], None, [256, 256], [0, 256, 0, 256])
        counts += found.astype(np.int64)
    return counts


def counted_ids(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The uint8 prediction with 255 where the truth is ignored.

    Raises:
        ValueError: shapes differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"prediction: expected shape {truth.shape}, got {prediction.shape}")
    return prediction | -(truth == IGNORE).view(np.uint8)


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
        highest = truth[truth != IGNORE].max(initial=0), prediction.max(initial=0)
        raise ValueError(
            f"truth and prediction: ids must be 0..{classes - 1} (truth also {IGNORE}), got "
            f"truth up to {highest[0]} and prediction up to {highest[1]}"
        )
    return matrix


def device_confusion_matrix(truth: Tensor, prediction: Tensor, classes: int) -> np.ndarray:
    """`confusion_matrix` of tensors on any device: only C x C numbers come to the host.

    Args:
        truth, prediction: integers as for `confusion_matrix`, on one device.
        classes: C.

    Returns, raises: as `confusion_matrix`.
    """
    if truth.shape != prediction.shape:
        shapes = tuple(truth.shape), tuple(prediction.shape)
        raise ValueError(f"prediction: expected shape {shapes[0]}, got {shapes[1]}")
    cells = classes * classes  # of the matrix; then one for ignored pixels, one for wrong ids
    wrong = (truth >= classes) | (prediction >= classes)
    pairs = (truth.long() * classes + prediction).masked_fill(wrong, cells + 1)
    pairs = pairs.masked_fill(truth == IGNORE, cells)
    counts = torch.bincount(pairs.flatten(), minlength=cells + 2).cpu().numpy()
    if counts[-1]:
        raise ValueError(
            f"truth and prediction: ids must be 0..{classes - 1} (truth also {IGNORE}), "
            f"{counts[-1]} pixels are not"
        )
    return counts[:cells].reshape(classes, classes)


def counts_of(matrix: np.ndarray) -> np.ndarray:
    """(3, C) int64 of a confusion matrix: true positives, truth and predicted pixels per class."""
    return np.stack([np.diagonal(matrix), matrix.sum(1), matrix.sum(0)])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole in float64; nan where the whole is 0."""
    out = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=out, where=np.asarray(whole) > 0)


def iou_of(counts: np.ndarray) -> np.ndarray:
    """(..., C) float64 IoU from (..., 3, C) counts; nan where the union is empty."""
    hit, truth, predicted = np.moveaxis(counts, -2, 0).astype(np.float64)
    return _ratio(hit, truth + predicted - hit)


def known_mean(values: np.ndarray) -> float:
    """The mean of the values that are not nan; nan without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def mean_iou(iou: np.ndarray) -> np.ndarray:
    """(...,) mean over the known classes of (..., C) IoU; nan where no class is known."""
    known = ~np.isnan(iou)
    return _ratio(np.where(known, iou, 0).sum(-1), known.sum(-1))


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
    recall = _ratio(hit, truth)
    return Scores(
        miou=known_mean(iou),
        divisor=int((~np.isnan(iou)).sum()),
        pixel_accuracy=float(_ratio(hit.sum(), truth.sum())),
        mean_accuracy=known_mean(recall),
        iou=iou,
        recall=recall,
        precision=_ratio(hit, predicted),
    )
