"""The score of a classification model on a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cfnseg.config import Data
from cfnseg.data.formats.class_folders import ImageSet
from cfnseg.data.loader import labelled_images
from cfnseg.data.transforms import ImageTransform
from cfnseg.evaluation.segmentation import combine
from cfnseg.metrics.ranking import top_errors
from cfnseg.models.segmenter import in_mode
from cfnseg.progress import progress

if TYPE_CHECKING:
    from cfnseg.training.stopping import Stopping

BATCH = 250  # images scored at once


@dataclass(frozen=True)
class ImageEvaluation:
    """What was counted over a split of labelled images.

    Attributes:
        names: the images.
        targets: (images,) int64 true class.
        scores: (images, C) float32 softmax probabilities.
        loss: mean cross-entropy.
    """

    names: list[str]
    targets: np.ndarray
    scores: np.ndarray
    loss: float

    @property
    def headline(self) -> float:
        """Top-1 accuracy, 0..1; higher is better."""
        return 1 - self.errors[0]

    @property
    def errors(self) -> tuple[float, float]:
        """Top-1 and top-5 error, 0..1."""
        return top_errors(self.scores, self.targets)

    def log_row(self) -> dict[str, float]:
        """What log.jsonl keeps."""
        return {
            "val_loss": self.loss,
            "val_top1_error": self.errors[0],
            "val_top5_error": self.errors[1],
        }

    def line(self) -> str:
        """The scores for the person who watches."""
        first, five = self.errors
        return (
            f"validation loss {self.loss:.4f}  top-1 error {100 * first:.1f}  "
            f"top-5 error {100 * five:.1f}"
        )

    def score(self) -> dict[str, float]:
        """What the header of a weights file keeps."""
        return {"top1_error": round(self.errors[0], 5), "top5_error": round(self.errors[1], 5)}


def evaluate_images(
    model: nn.Module,
    data: ImageSet,
    settings: Data,
    *,
    device: str | torch.device = "cpu",
    workers: int = 2,
    rank: int = 0,
    world: int = 1,
    precision: Any = None,
    stopping: Stopping | None = None,
    title: str = "",
) -> ImageEvaluation:
    """Score a classification model on a split: the centre of each image at the crop's size.

    Args:
        model: a classification model, on ``device``; left in the mode it was in.
        data: the split.
        settings: the data section of its training (crop).
        device, workers, rank, world, precision, title: as for `cfnseg.evaluate`.
        stopping: asked before each batch.

    Returns:
        The same `ImageEvaluation` in every process.

    Raises:
        UserError: a file that cannot be read, classes that are not the model's.
        Stopped: a process was asked to stop; all of them raise it.
    """
    scores = np.zeros((len(data.names), len(data.labels)), np.float32)
    loss = np.zeros(1)
    transform = ImageTransform(settings, train=False)
    count = -(-len(range(rank, len(data.names), world)) // BATCH)
    with in_mode(model):
        for indices, images in progress(
            labelled_images(data, transform, BATCH, workers, rank, world), count, title, "batches"
        ):
            if stopping and stopping.asked:
                break
            with (
                torch.inference_mode(),
                precision() if precision else torch.autocast("cpu", enabled=False),
            ):
                logits = model(images.to(device)).image
            logits, indices = logits.float().cpu(), indices.numpy()
            scores[indices] = logits.softmax(1).numpy()
            loss += F.cross_entropy(
                logits, torch.from_numpy(data.targets[indices]), reduction="sum"
            ).item()
    combine((scores, loss), stopping, device, world)
    return ImageEvaluation(data.names, data.targets, scores, float(loss[0] / len(data.names)))
