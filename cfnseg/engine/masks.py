"""Scoring masks that any program wrote, in parallel, by the metric contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cfnseg.data.dataset import Dataset
from cfnseg.data.loader import quiet_worker
from cfnseg.data.predictions import read_prediction
from cfnseg.engine.evaluate import Evaluation
from cfnseg.errors import UserError
from cfnseg.metrics.details import Details, count_details
from cfnseg.metrics.pairs import pair_counts


class _Counted(TorchDataset):
    def __init__(self, dataset: Dataset, masks: list[Path], details: bool) -> None:
        self.dataset, self.masks, self.details = dataset, masks, details

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int):
        try:
            truth = self.dataset.read_truth(index)
            prediction = read_prediction(self.masks[index], self.dataset.labels, truth.shape)
        except UserError as error:
            return error
        return index, *count_image(truth, prediction, len(self.dataset.labels), self.details)


def count_image(truth: np.ndarray, prediction: np.ndarray, classes: int, details: bool) -> tuple[np.ndarray, np.ndarray, tuple | None]:
    """Count one image.

    Args:
        truth, prediction: (H, W) uint8 train ids; a pixel predicted as 255 has no class and is wrong where it counts.
        classes: C.
        details: count boundaries, trimaps and sizes too.

    Returns:
        (C, C) confusion of the pixels that got a class, (3, C) counts of all, and what
        `cfnseg.metrics.details.count_details` gives.
    """
    pairs = pair_counts(truth, prediction)[:classes]
    matrix = pairs[:, :classes]
    counts = np.stack([matrix.diagonal(), pairs.sum(1), matrix.sum(0)])
    return matrix, counts, count_details(truth, prediction, classes) if details else None


def evaluate_masks(dataset: Dataset, masks: list[Path], workers: int = 2, details: bool = False) -> Evaluation:
    """Score a mask file for each image of a split.

    Args:
        dataset: the split.
        masks: the files, in the order of ``dataset.names``, of raw ids at the truths' sizes.
        workers: processes that read and count.
        details: count boundaries, trimaps and sizes too, for final reports.

    Raises:
        UserError: a file that cannot be read, has an unknown id or another size than its truth.
    """
    classes = len(dataset.labels)
    confusion = np.zeros((classes, classes), np.int64)
    counts = np.zeros((len(masks), 3, classes), np.int64)
    more = Details.zeros(len(masks), classes) if details else None
    loader = DataLoader(_Counted(dataset, masks, details), batch_size=None, num_workers=workers, worker_init_fn=quiet_worker,
                        collate_fn=_unchanged)
    for item in loader:
        if isinstance(item, UserError):
            raise item
        index, matrix, counts[index], extra = item
        confusion += matrix
        if more:
            more.add(index, extra)
    return Evaluation(dataset.names, confusion, counts, details=more)


def _unchanged(item):
    return item  # arrays stay arrays: as tensors, each would travel in a file of its own
