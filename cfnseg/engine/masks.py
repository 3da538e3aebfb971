"""Scoring masks that any program wrote, in parallel, by the metric contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cfnseg.data.dataset import Dataset
from cfnseg.data.loader import quiet_worker
from cfnseg.data.predictions import read_predicted_ids
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
            return index, *count_image(self.dataset, index, self.masks[index], self.details)
        except UserError as error:
            return error


def count_image(dataset: Dataset, index: int, mask: Path, details: bool) -> tuple[np.ndarray, np.ndarray, tuple | None]:
    """Count one image.

    Args:
        dataset: the split.
        index: of the image.
        mask: its prediction, raw ids; a pixel of an ignored id has no class and is wrong where it counts.
        details: count boundaries, trimaps and sizes too.

    Returns:
        (C, C) confusion of the pixels that got a class, (3, C) counts of all, and what
        `cfnseg.metrics.details.count_details` gives.

    Raises:
        UserError: a file that cannot be read, has an unknown id, or another size than the truth.
    """
    labels, classes = dataset.labels, len(dataset.labels)
    truth = dataset.read_ids(index)
    prediction = read_predicted_ids(mask, truth.shape)
    # raw ids are counted and their counts encoded: encoding the pixels would take half as long as decoding the files
    pairs = labels.encode_counts(pair_counts(truth, prediction))
    if pairs is None:
        dataset.read_truth(index)
        labels.encode(prediction, mask)  # this, if not that, says which id is unknown
    matrix = pairs[:, :classes]
    counts = np.stack([matrix.diagonal(), pairs.sum(1), matrix.sum(0)])
    more = count_details(labels.encode(truth), labels.encode(prediction), classes) if details else None
    return matrix, counts, more


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
