"""The score of mask files that any program wrote."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from cfnseg.data.dataset import Dataset, read_ids, read_truth
from cfnseg.data.files import few_bits
from cfnseg.data.loader import parallel
from cfnseg.data.predictions import demand_raw_ids, read_predicted_ids
from cfnseg.evaluation.segmentation import Evaluation
from cfnseg.metrics.confusion import pair_counts
from cfnseg.metrics.segments import Details, count_details
from cfnseg.progress import progress


def count_image(
    dataset: Dataset, details: bool, alone: bool, job: tuple[int, Path]
) -> tuple[np.ndarray, np.ndarray, tuple | None, np.ndarray, np.ndarray]:
    """Count one image.

    Args:
        dataset: the split.
        details: count boundaries, trimaps and sizes too.
        alone: as in `LabelMap.demand_one_meaning`, for the predictions.
        job: the image's index, and its prediction: raw ids, where a pixel of an ignored id has no
            class and is wrong where it counts.

    Returns:
        (C, C) confusion of the pixels that got a class, (3, C) counts of all, what
        `cfnseg.metrics.segments.count_details` gives, (256,) pixels of each predicted id, and (C,)
        pixels that would be right if the predictions were train ids.

    Raises:
        UserError: a file that cannot be read, has an unknown id, or another size than the truth.
    """
    (index, mask), labels, classes = job, dataset.labels, len(dataset.labels)
    true = read_ids(dataset, index)
    prediction = read_predicted_ids(mask, labels, true.shape, alone)
    # encode 256 x 256 counts, not the pixels: that would take half as long as decoding the files
    raw = pair_counts(true, prediction)
    pairs = labels.encode_counts(raw)
    if pairs is None:
        read_truth(dataset, index)
        labels.encode(prediction, mask)  # one of the two calls names the unknown id
    matrix = pairs[:, :classes]
    counts = np.stack([matrix.diagonal(), pairs.sum(1), matrix.sum(0)])
    more = (
        count_details(labels.encode(true), labels.encode(prediction), classes) if details else None
    )
    return (
        matrix,
        counts,
        more,
        raw.sum(0),
        raw[[label.id for label in labels.labels], range(classes)],
    )


def evaluate_masks(
    dataset: Dataset, masks: list[Path], workers: int = 2, details: bool = False, title: str = ""
) -> Evaluation:
    """Score a mask file for each image of a split.

    Args:
        dataset: the split.
        masks: the files, in the order of ``dataset.names``, of raw ids at the truths' sizes.
        workers: processes that read and count.
        details: count boundaries, trimaps and sizes too, for final reports.
        title: of the progress display; "" = none.

    Raises:
        UserError: a file that cannot be read, has an unknown id, two meanings or another size than
            its truth; predictions that hold train ids.
    """
    classes = len(dataset.labels)
    used, as_train = np.zeros(256, np.int64), np.zeros(classes, np.int64)
    confusion = np.zeros((classes, classes), np.int64)
    counts = np.zeros((len(masks), 3, classes), np.int64)
    more = Details.zeros(len(masks), classes) if details else None
    count = functools.partial(count_image, dataset, details, few_bits(masks, "predictions"))
    results = progress(parallel(count, enumerate(masks), workers), len(masks), title)
    for index, (matrix, counts[index], extra, ids, right) in enumerate(results):
        confusion += matrix
        used += ids
        as_train += right
        if more:
            more.add(index, extra)
    demand_raw_ids(dataset.labels, used, counts[:, 0].sum(0), as_train)
    return Evaluation(dataset.names, confusion, counts, details=more)
