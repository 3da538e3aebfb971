"""Evaluation by the metric contract: whole images at their native size, one confusion matrix over the split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from cfnseg.data.dataset import Dataset
from cfnseg.data.loader import whole_images
from cfnseg.engine.predict import whole_logits
from cfnseg.metrics.boundary import boundary_counts
from cfnseg.metrics.classification import mean_average_precision
from cfnseg.metrics.confusion import Scores, confusion_matrix, counts_of, scores_of
from cfnseg.metrics.uncertainty import bootstrap_miou
from cfnseg.ops import dense_argmax, dense_cross_entropy


@dataclass(frozen=True)
class Evaluation:
    """What was counted over a split.

    Attributes:
        names: the images.
        confusion: (C, C) int64, rows = truth.
        counts: (images, 3, C) int64 true positives, truth and predicted pixels of each image.
        loss: mean cross-entropy over the counted pixels; nan where masks were scored without a model.
        presence: (images, C) float64 image-head probabilities, or None without an image head.
        boundary: (images, 3, C) int64 boundary pixels (intersection, truth, prediction), or None if not counted.
    """

    names: list[str]
    confusion: np.ndarray
    counts: np.ndarray
    loss: float = float("nan")
    presence: np.ndarray | None = None
    boundary: np.ndarray | None = None

    @property
    def scores(self) -> Scores:
        """mIoU and its companions."""
        return scores_of(self.confusion)

    @property
    def headline(self) -> float:
        """mIoU; higher is better."""
        return self.scores.miou

    def log_row(self) -> dict[str, float]:
        """What log.jsonl keeps."""
        return {"val_loss": self.loss, "val_miou": self.scores.miou, "val_pixel_accuracy": self.scores.pixel_accuracy}

    def line(self) -> str:
        """The scores for the person who watches."""
        scores = self.scores
        return (f"validation loss {self.loss:.4f}  mIoU {scores.miou:.4f} over {scores.divisor} classes  "
                f"pixel accuracy {scores.pixel_accuracy:.4f}")

    def score(self) -> dict[str, float]:
        """What the header of a weights file keeps."""
        return {"miou": round(self.scores.miou, 5)}

    def miou_ci95(self) -> tuple[float, float]:
        """Bootstrap 95 % interval of mIoU over images."""
        return bootstrap_miou(self.counts)

    def image_map(self) -> tuple[float, np.ndarray]:
        """Mean average precision of the image head and the (C,) average precisions; nan without an image head."""
        if self.presence is None:
            return float("nan"), np.full(len(self.confusion), np.nan)
        return mean_average_precision(self.presence, self.counts[:, 1] > 0)


def evaluate(model: nn.Module, dataset: Dataset, *, device: str | torch.device = "cpu", workers: int = 2, rank: int = 0,
             world: int = 1, limit: int | None = None, precision: Any = None, boundary: bool = False) -> Evaluation:
    """Score a model on a split.

    Args:
        model: a segmentation model, on ``device``; left in the mode it was in.
        dataset: the split.
        device: where the model is.
        workers: loader processes.
        rank, world: this process and how many share the work (every world-th image each, none twice). The matrix is the
            same for any number of them.
        limit: only the first so many images.
        precision: a context manager factory for the forward pass, e.g. ``fabric.autocast``.
        boundary: count boundary pixels too (`cfnseg.metrics.boundary`), for final reports.

    Returns:
        The same `Evaluation` in every process.

    Raises:
        UserError: a file that cannot be read, an id that is unknown.
    """
    classes = len(dataset.labels)
    names = dataset.names[:limit]
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    counts = torch.zeros(len(names), 3, classes, dtype=torch.int64)
    presence = torch.zeros(len(names), classes, dtype=torch.float64)
    edges = torch.zeros(len(names), 3, classes, dtype=torch.int64)
    loss = torch.zeros(2, dtype=torch.float64)  # sum, pixels
    training = model.training
    model.eval()
    try:
        for index, image, truth in whole_images(dataset, workers, rank, world, limit):
            size = tuple(truth.shape)
            with precision() if precision else torch.autocast("cpu", enabled=False):
                output = whole_logits(model, image.to(device))
            logits = output.pixel.float()
            target = truth[None].to(device)
            loss[0] += dense_cross_entropy(logits, target, reduction="sum").double().cpu()
            loss[1] += int((truth != 255).sum())
            prediction = dense_argmax(logits, size)[0].cpu().numpy()
            matrix = confusion_matrix(truth.numpy(), prediction, classes)
            confusion += torch.from_numpy(matrix)
            counts[index] = torch.from_numpy(counts_of(matrix))
            if boundary:
                edges[index] = torch.from_numpy(boundary_counts(truth.numpy(), prediction, classes))
            presence[index] = output.image[0].double().sigmoid().cpu()
    finally:
        model.train(training)
    if world > 1:  # every image is in one process only, so sums put the parts together
        for part in (confusion, counts, edges, presence, loss):
            _sum_over_processes(part, device)
    mean = float(loss[0] / loss[1]) if loss[1] else float("nan")
    return Evaluation(names, confusion.numpy(), counts.numpy(), mean, presence.numpy(), edges.numpy() if boundary else None)


def _sum_over_processes(part: Tensor, device: str | torch.device) -> None:
    moved = part.to(device)
    dist.all_reduce(moved)
    part.copy_(moved)
