"""What the training loop needs of a task, as plain functions: data, samples, loss, scores,
pictures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.config import Config, Loss
from cfnseg.data.dataset import Dataset, hold_out, open_dataset
from cfnseg.data.formats.class_folders import ImageSet, hold_out_images, open_images
from cfnseg.data.loader import Batch
from cfnseg.data.transforms import ImageTransform, TrainTransform
from cfnseg.drawing import sheet, write_jpeg
from cfnseg.evaluation.classification import evaluate_images
from cfnseg.evaluation.overlap import evaluate_layers, predicted_layers
from cfnseg.evaluation.segmentation import evaluate, predicted
from cfnseg.models.segmenter import Output
from cfnseg.storage import write_atomic
from cfnseg.training.loss import batch_loss, loss_totals
from cfnseg.training.sigmoid_loss import sigmoid_batch_loss


@dataclass(frozen=True)
class Task:
    """One task's functions.

    Attributes:
        open_data: (download) -> training and validation data; raises UserError.
        make_transform: ((r, g, b) of padding, `cfnseg.data.bands.Bands` or None) -> the function
            that makes a training sample.
        totals: (batch, class weights, processes) -> what the losses of the batch's parts are
            divided by.
        loss: (output, batch, weight=class weights, world=processes, side=weight of each side
            output's loss, totals=totals of the whole batch or None) -> scalar.
        evaluate: (model, data, **where) -> the score on a split; see `evaluate`.
        draw: (model, data, path): a picture of the same few validation images; None = no picture.
    """

    open_data: Callable[[bool], tuple[Any, Any]]
    make_transform: Callable[..., Callable]
    totals: Callable[[Batch, Tensor | None, int], Any]
    loss: Callable[..., Tensor]
    evaluate: Callable[..., Any]
    draw: Callable[[nn.Module, Dataset, Path], None] | None = None


def segmentation(config: Config) -> Task:
    """A class for each pixel."""
    data = config.data

    def open_data(download: bool = False) -> tuple[Dataset, Dataset]:
        train = open_dataset(data.name, data.root, data.train_split, download, data.channels)
        if data.holdout or data.fold:
            return hold_out(train, data)
        return train, open_dataset(data.name, data.root, data.val_split, channels=data.channels)

    sigmoid = config.model.output == "sigmoid"
    pixels = sigmoid_batch_loss if sigmoid else batch_loss

    def loss(output: Output, batch: Batch, **how: Any) -> Tensor:
        return pixels(output, batch["mask"], config.loss, region=batch["region"], **how)

    return Task(
        open_data,
        functools.partial(TrainTransform, data),
        lambda batch, weight, world: loss_totals(batch["mask"], batch["region"], weight, world),
        loss,
        functools.partial(evaluate_layers if sigmoid else evaluate, workers=data.workers),
        functools.partial(draw_sheet, config.train.pictures, sigmoid)
        if config.train.pictures
        else None,
    )


def classification(config: Config) -> Task:
    """A class for each image."""
    data = config.data

    def open_data(download: bool = False) -> tuple[ImageSet, ImageSet]:
        train = open_images(data.name, data.root, data.train_split, download)
        if data.holdout:
            return hold_out_images(train, data.holdout)
        return train, open_images(data.name, data.root, data.val_split, classes=train.labels.names)

    return Task(
        open_data,
        lambda *_: ImageTransform(data, train=True),
        count_images,
        functools.partial(label_loss, config.loss),
        functools.partial(evaluate_images, settings=data, workers=data.workers),
    )


def with_loss(task: Task, loss: Callable[[Output, Batch], Tensor]) -> Task:
    """The task with a user's loss, (output, batch) -> scalar, a mean over the batch's images."""

    def scaled(
        output: Output, batch: Batch, *, totals: int | None = None, world: int = 1, **_: Any
    ) -> Tensor:
        value = loss(output, batch)
        if world > 1:  # every parameter needs a gradient, whatever outputs the loss leaves out
            value = value + 0 * sum(
                x.sum() for x in (output.pixel, output.image, *output.side) if x is not None
            )
        return value * (len(batch["image"]) / totals if totals else 1)

    return replace(task, loss=scaled, totals=count_images)


def forward(model: nn.Module, batch: Batch) -> Output:
    """The output for a batch, with the crops' regions where the task has them."""
    return model(*(batch[key] for key in ("image", "region") if key in batch))


def count_images(batch: Batch, weight: Tensor | None, world: int) -> int:
    """This process's images; each process has as many."""
    return len(batch["image"])


def label_loss(
    settings: Loss,
    output: Output,
    batch: Batch,
    *,
    side: float = 0.0,
    totals: int | None = None,
    **_: Any,
) -> Tensor:
    """Cross-entropy of the image head + ``side`` x that of each companion.

    Args:
        settings: label_smoothing.
        output: image (N, C) logits, and companions' in ``side``.
        batch: target (N,) int64.
        side: weight of each companion's loss.
        totals: images of the whole batch where this is a part of it.
    """
    count = totals or len(batch["target"])

    def mean(logits: Tensor) -> Tensor:
        return (
            F.cross_entropy(
                logits.float(),
                batch["target"],
                reduction="sum",
                label_smoothing=settings.label_smoothing,
            )
            / count
        )

    return mean(output.image) + side * sum(mean(logits) for logits in output.side)


def draw_sheet(wanted: int, sigmoid: bool, model: nn.Module, data: Dataset, path: Path) -> None:
    """Write a sheet of up to ``wanted`` validation images, evenly spread over the split; sigmoid
    outputs are shown from 0.5 on."""
    places = np.linspace(0, len(data.names) - 1, min(wanted, len(data.names)))
    half = np.full(len(data.labels), 0.5)
    rows = [
        predicted_layers(model, data, int(i), half) if sigmoid else predicted(model, data, int(i))
        for i in places
    ]
    write_atomic(path, lambda temporary: write_jpeg(temporary, sheet(rows, data.labels)))
