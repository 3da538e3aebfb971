"""What the training loop does for pixel-level models: their data, samples, loss, evaluation and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cfnseg.config import Config
from cfnseg.data.dataset import Dataset, hold_out, open_dataset
from cfnseg.data.loader import Batch, class_counts, median_frequency_weights
from cfnseg.data.transforms import TrainTransform
from cfnseg.engine.evaluate import Evaluation, evaluate
from cfnseg.engine.inference import PLAIN, Inference
from cfnseg.engine.log import RunLog
from cfnseg.engine.loss import batch_loss
from cfnseg.engine.pictures import sheet, write_jpeg
from cfnseg.engine.predict import segment
from cfnseg.storage import write_atomic


class Segmentation:
    """The pixel-level task; `cfnseg.engine.classification.Classification` has the same methods for image-level nets.

    Args:
        config: every setting of the run.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.class_weights: Tensor | None = None

    def open(self, download: bool = False) -> tuple[Dataset, Dataset]:
        """Training and validation data. Raises UserError."""
        data = self.config.data
        train = open_dataset(data.name, data.root, data.train_split, download)
        return hold_out(train, data.holdout) if data.holdout else (train, open_dataset(data.name, data.root, data.val_split))

    def transform(self, encoder: nn.Module) -> TrainTransform:
        """How a training sample is made for ``encoder``."""
        return TrainTransform(self.config.data, tuple(round(255 * float(v)) for v in encoder.mean.flatten()))

    def prepare(self, data: Dataset, device: torch.device, log: RunLog) -> None:
        """What has to be counted on the training data before the first step."""
        settings = self.config.loss
        if settings.class_weights == "none":
            return
        log.say("counting the training masks' classes for class weights")
        weights = median_frequency_weights(class_counts(data, self.config.data.workers), settings.class_weight_power)
        self.class_weights = torch.tensor(weights, dtype=torch.float32, device=device)

    def loss(self, model: nn.Module, batch: Batch, world: int, side: float) -> Tensor:
        """The loss of a batch that is on the model's device; ``side`` weighs that of each side output."""
        output = model(batch["image"], batch["region"])
        return batch_loss(output, batch["mask"], self.config.loss, self.class_weights, world, side, batch["region"])

    def evaluate(self, model: nn.Module, data: Dataset, **where: Any) -> Evaluation:
        """Score on a split; see `cfnseg.engine.evaluate.evaluate`."""
        return evaluate(model, data, workers=self.config.data.workers, **where)

    def draw(self, model: nn.Module, data: Dataset, path: Path, device: torch.device) -> None:
        """A sheet of the same few validation images, evenly spread over the split."""
        wanted = min(self.config.train.pictures, len(data.names))
        if not wanted:
            return
        rows = [predicted(model, data, int(i)) for i in np.linspace(0, len(data.names) - 1, wanted)]
        write_atomic(path, lambda beside: write_jpeg(beside, sheet(rows, data.labels)))


def predicted(model: nn.Module, dataset: Dataset, index: int, inference: Inference = PLAIN) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H, W, 3), truth and prediction (H, W) train ids of one image of a data set."""
    image, truth = dataset.read(index)
    training = model.training
    model.eval()
    mask = segment(model, torch.from_numpy(image).permute(2, 0, 1), inference).mask
    model.train(training)
    return image, truth, mask.cpu().numpy()
