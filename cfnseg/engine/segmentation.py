"""What the training loop does for pixel-level models: their data, samples, loss, evaluation and pictures."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from cfnseg.config import Config
from cfnseg.data.dataset import Dataset, fingerprint, hold_out, open_dataset, read_sample
from cfnseg.data.loader import Batch, class_counts, class_frequency, median_frequency_weights
from cfnseg.data.transforms import TrainTransform
from cfnseg.drawing import sheet, write_jpeg
from cfnseg.engine.evaluate import Evaluation, evaluate
from cfnseg.engine.hosts import from_main
from cfnseg.engine.inference import PLAIN, Inference
from cfnseg.engine.log import RunLog
from cfnseg.engine.loss import Totals, batch_loss, loss_totals
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
        self.classes = 0

    def open(self, download: bool = False) -> tuple[Dataset, Dataset]:
        """Training and validation data. Raises UserError."""
        data = self.config.data
        train = open_dataset(data.name, data.root, data.train_split, download)
        return hold_out(train, data.holdout) if data.holdout else (train, open_dataset(data.name, data.root, data.val_split))

    def transform(self, encoder: nn.Module) -> TrainTransform:
        """How a training sample is made for ``encoder``."""
        return TrainTransform(self.config.data, tuple(round(255 * float(v)) for v in encoder.mean.flatten()))

    def prepare(self, data: Dataset, fabric: Fabric, folder: Path, log: RunLog) -> None:
        """Class weights, counted once by rank 0 and kept in ``folder``."""
        settings, self.classes = self.config.loss, len(data.labels)
        if settings.class_weights == "none":
            return
        frequency = from_main(fabric, lambda: self._frequency(data, folder / "class_frequency.json", log))
        weights = median_frequency_weights(np.array(frequency), settings.class_weight_power)
        self.class_weights = torch.tensor(weights, dtype=torch.float32, device=fabric.device)

    def _frequency(self, data: Dataset, path: Path, log: RunLog) -> list[float]:
        """`class_frequency` of the training masks, read from ``path`` if it was counted on the same files."""
        known = fingerprint(data)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(path.read_text())
            if kept["fingerprint"] == known and len(kept["frequency"]) == len(data.labels):
                return [float(value) for value in kept["frequency"]]
        log.say("counting the training masks' classes for class weights")
        frequency = class_frequency(class_counts(data, self.config.data.workers)).tolist()
        text = json.dumps({"fingerprint": known, "classes": data.labels.names, "frequency": frequency})
        write_atomic(path, lambda beside: beside.write_text(text))
        return frequency

    def totals(self, batch: Batch, world: int) -> Totals:
        """What the losses of a part of ``batch`` are divided by: counted over the total batch."""
        return loss_totals(batch["mask"], batch["region"], self.classes, self.class_weights, world)

    def loss(self, model: nn.Module, batch: Batch, world: int, side: float, totals: Totals | None = None) -> Tensor:
        """The loss of a batch, or of a part of one, that is on the model's device.

        Args:
            model: the network.
            batch: image (N, 3, H, W), mask (N, H, W), region (N, 4).
            world: processes that share the total batch.
            side: weight of each side output's loss.
            totals: `totals` of the whole batch where this is a part of it.
        """
        output = model(batch["image"], batch["region"])
        return batch_loss(output, batch["mask"], self.config.loss, self.class_weights, world, side, batch["region"], totals)

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
    image, truth = read_sample(dataset, index)
    training = model.training
    model.eval()
    mask = segment(model, torch.from_numpy(image).permute(2, 0, 1), inference).mask
    model.train(training)
    return image, truth, mask.cpu().numpy()
