"""Which branch of a CFN decides which class, counted over some images of a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from cfnseg.data.dataset import Dataset, read_pixels
from cfnseg.errors import UserError
from cfnseg.inference.explanation import check_explainable, explain
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.models.segmenter import bands_of
from cfnseg.progress import progress

if TYPE_CHECKING:
    from cfnseg.training.stopping import Stopping

MOST = 20  # images; an image takes about as long as two of the evaluation


@dataclass(frozen=True)
class Decisions:
    """Sums of `cfnseg.inference.explanation.Explanation.by_class`.

    Attributes:
        names: of the branches, and "bias".
        images: how many were explained.
        decided: (C, S + 1) int64 cells predicted as each class that each branch decided.
        margins: (C, S + 1) float64 sums of the branches' parts in these cells' margins.
    """

    names: list[str]
    images: int
    decided: np.ndarray
    margins: np.ndarray


def count_decisions(
    model: nn.Module,
    dataset: Dataset,
    inference: Inference = PLAIN,
    *,
    most: int = MOST,
    stopping: Stopping | None = None,
    title: str = "",
) -> Decisions | None:
    """Explain up to ``most`` images, evenly spread over a split.

    Args:
        model: a segmentation model.
        dataset, inference: as for `cfnseg.evaluation.segmentation.evaluate`.
        most: images.
        stopping: asked before each image.
        title: of the progress display; "" = none.

    Returns:
        The sums; None for a model or an inference that `explain` does not take.

    Raises:
        UserError: an image that cannot be read. Stopped: asked to stop.
    """
    try:
        check_explainable(model, inference)
    except UserError:
        return None
    shape = len(dataset.labels), len(model.branch_names) + 1
    decided, margins = np.zeros(shape, np.int64), np.zeros(shape)
    count = min(most, len(dataset.names))
    chosen = np.linspace(0, len(dataset.names) - 1, count).round().astype(int).tolist()
    names = [*model.branch_names, "bias"]
    for index in progress(chosen, count, title):
        if stopping:
            stopping.check()
        pixels = np.ascontiguousarray(read_pixels(dataset, index, bands_of(model)))
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        cells, parts = explain(model, image, inference).by_class(shape[0])
        decided += cells
        margins += parts
    return Decisions(names, count, decided, margins)
