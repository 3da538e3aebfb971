"""What the training loop does for image-level nets: their data, samples, loss and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor, nn

from cfnseg.config import Config, Data
from cfnseg.data.formats.class_folders import ImageSet, hold_out_images, open_images
from cfnseg.data.loader import Batch, labelled_images
from cfnseg.data.transforms import ImageTransform
from cfnseg.engine.evaluate import stop_together
from cfnseg.engine.log import RunLog
from cfnseg.engine.stopping import Stopping
from cfnseg.metrics.ranking import top_errors

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
        return {"val_loss": self.loss, "val_top1_error": self.errors[0], "val_top5_error": self.errors[1]}

    def line(self) -> str:
        """The scores for the person who watches."""
        return f"validation loss {self.loss:.4f}  top-1 error {self.errors[0]:.2%}  top-5 error {self.errors[1]:.2%}"

    def score(self) -> dict[str, float]:
        """What the header of a weights file keeps."""
        return {"top1_error": round(self.errors[0], 5), "top5_error": round(self.errors[1], 5)}


class Classification:
    """The image-level task; see `cfnseg.engine.segmentation.Segmentation`.

    Args:
        config: every setting of the run.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    def open(self, download: bool = False) -> tuple[ImageSet, ImageSet]:
        """Training and validation data. Raises UserError."""
        data = self.config.data
        train = open_images(data.name, data.root, data.train_split, download)
        if data.holdout:
            return hold_out_images(train, data.holdout)
        return train, open_images(data.name, data.root, data.val_split, classes=train.labels.names)

    def transform(self, encoder: nn.Module) -> ImageTransform:
        """How a training sample is made."""
        return ImageTransform(self.config.data, train=True)

    def prepare(self, data: ImageSet, fabric: Fabric, folder: Path, log: RunLog) -> None:
        """Nothing has to be counted first."""

    def totals(self, batch: Batch, world: int) -> int:
        """What the loss of a part of ``batch`` is divided by: this process's images."""
        return len(batch["target"])

    def loss(self, model: nn.Module, batch: Batch, world: int, side: float, totals: int | None = None) -> Tensor:
        """The loss of a batch, or of a part of one, that is on the model's device.

        Args:
            model: the network.
            batch: image (N, 3, H, W), target (N,).
            world: processes; each has the same number of images, so their mean is that of the total batch.
            side: weight of each companion's loss.
            totals: `totals` of the whole batch where this is a part of it.
        """
        output, count = model(batch["image"]), totals or len(batch["target"])

        def mean(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits.float(), batch["target"], reduction="sum",
                                   label_smoothing=self.config.loss.label_smoothing) / count

        return mean(output.image) + side * sum(mean(logits) for logits in output.side)

    def evaluate(self, model: nn.Module, data: ImageSet, **where: Any) -> ImageEvaluation:
        """Score on a split; see `evaluate_images`."""
        return evaluate_images(model, data, self.config.data, workers=self.config.data.workers, **where)

    def draw(self, model: nn.Module, data: ImageSet, path: Path, device: torch.device) -> None:
        """Labels need no picture."""


def evaluate_images(model: nn.Module, data: ImageSet, settings: Data, *, device: str | torch.device = "cpu", workers: int = 2,
                    rank: int = 0, world: int = 1, precision: Any = None, stopping: Stopping | None = None) -> ImageEvaluation:
    """Score an image-level net on a split: each image's middle at the crop's size.

    Args:
        model: an image-level net, on ``device``; left in the mode it was in.
        data: the split.
        settings: the data section that it was trained with (crop).
        device: where the model is.
        workers: loader processes.
        rank, world: this process and how many share the images.
        precision: a context manager factory for the forward pass.
        stopping: looked at before each batch.

    Returns:
        The same `ImageEvaluation` in every process.

    Raises:
        UserError: a file that cannot be read, classes that are not the model's.
        Stopped: a process was asked to stop; all of them raise it.
    """
    scores = torch.zeros(len(data.names), len(data.labels))
    targets = torch.from_numpy(data.targets)
    loss = torch.zeros((), dtype=torch.float64)
    training = model.training
    model.eval()
    try:
        for indices, images in labelled_images(data, ImageTransform(settings, train=False), BATCH, workers, rank, world):
            if stopping and stopping.asked:
                break
            with torch.inference_mode(), precision() if precision else torch.autocast("cpu", enabled=False):
                logits = model(images.to(device)).image
            logits = logits.float().cpu()
            scores[indices] = logits.softmax(1)
            loss += F.cross_entropy(logits, targets[indices], reduction="sum").double()
    finally:
        model.train(training)
    if stopping:
        stop_together(stopping, device, world)
    if world > 1:
        for part in (scores, loss):
            moved = part.to(device)
            dist.all_reduce(moved)
            part.copy_(moved)
    return ImageEvaluation(data.names, data.targets, scores.numpy(), float(loss / len(data.names)))
