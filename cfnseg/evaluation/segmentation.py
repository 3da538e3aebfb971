"""Evaluation by the metric contract: whole images at their native size, one confusion matrix over
the split."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from cfnseg.data.bands import Bands, as_picture
from cfnseg.data.dataset import Dataset, read_sample
from cfnseg.data.labels import IGNORE
from cfnseg.data.loader import whole_images
from cfnseg.errors import Stopped
from cfnseg.inference.predictor import Segmented, segment
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.metrics.calibration import BINS, calibration_counts
from cfnseg.metrics.confusion import (
    Scores,
    confusion_matrix,
    counts_of,
    device_confusion_matrix,
    scores_of,
)
from cfnseg.metrics.ranking import mean_average_precision
from cfnseg.metrics.segments import Details, count_details
from cfnseg.models.segmenter import bands_of, in_mode
from cfnseg.progress import progress

if TYPE_CHECKING:
    from cfnseg.training.stopping import Stopping


@dataclass(frozen=True)
class Evaluation:
    """What was counted over a split.

    Attributes:
        names: the images.
        confusion: (C, C) int64, rows = truth.
        counts: (images, 3, C) int64 true positives, truth and predicted pixels of each image.
            Pixels to which a mask gives no class are in the truth's here, so they are wrong, and
            nowhere in ``confusion``.
        loss: mean cross-entropy over the counted pixels; nan where masks were scored without a
            model.
        presence: (images, C) float64 image-head probabilities, or None without an image head.
        details: boundaries, trimaps and sizes of segments, or None if not counted.
        calibration: (15, 3) float64 of `cfnseg.metrics.calibration`, or None if not counted or
            without a model.
    """

    names: list[str]
    confusion: np.ndarray
    counts: np.ndarray
    loss: float = float("nan")
    presence: np.ndarray | None = None
    details: Details | None = None
    calibration: np.ndarray | None = None

    @property
    def scores(self) -> Scores:
        """mIoU and its companions."""
        return scores_of(self.counts.sum(0))

    @property
    def headline(self) -> float:
        """mIoU; higher is better."""
        return self.scores.miou

    def log_row(self) -> dict[str, float]:
        """What log.jsonl keeps."""
        return {
            "val_loss": self.loss,
            "val_miou": self.scores.miou,
            "val_pixel_accuracy": self.scores.pixel_accuracy,
        }

    def line(self) -> str:
        """The scores for the person who watches."""
        scores = self.scores
        return (
            f"validation loss {self.loss:.4f}  mIoU {100 * scores.miou:.1f} over "
            f"{scores.divisor} classes  pixel accuracy {100 * scores.pixel_accuracy:.1f}"
        )

    def score(self) -> dict[str, float]:
        """What the header of a weights file keeps."""
        return {"miou": round(self.scores.miou, 5)}

    def image_map(self) -> tuple[float, np.ndarray]:
        """Mean average precision of the image head and the (C,) average precisions; nan without an
        image head."""
        if self.presence is None:
            return float("nan"), np.full(len(self.confusion), np.nan)
        return mean_average_precision(self.presence, self.counts[:, 1] > 0)


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    *,
    device: str | torch.device = "cpu",
    workers: int = 2,
    rank: int = 0,
    world: int = 1,
    limit: int | None = None,
    precision: Any = None,
    details: bool = False,
    inference: Inference = PLAIN,
    stopping: Stopping | None = None,
    title: str = "",
) -> Evaluation:
    """Score a model on a split.

    Args:
        model: a segmentation model, on ``device``; left in the mode it was in.
        dataset: the split.
        device: where the model is. On a GPU the pixels are counted there, and C x C numbers an
            image leave it.
        workers: loader processes.
        rank, world: this process and how many share the work (every world-th image each, none
            twice). The matrix is the same for any number of them.
        limit: only the first so many images.
        precision: a context manager factory for the forward pass, e.g. ``fabric.autocast``.
        details: count boundaries, trimaps, sizes of segments and calibration too, for final
            reports; this takes the masks to the CPU.
        inference: windows, scales, mirroring.
        stopping: asked before each image.
        title: of the progress display; "" = none.

    Returns:
        The same `Evaluation` in every process.

    Raises:
        UserError: a file that cannot be read, an id that is unknown.
        Stopped: a process was asked to stop; all of them raise it.

    Example:
        >>> import cfnseg
        >>> weights = cfnseg.load("runs/example/best.safetensors")
        >>> data = cfnseg.open_dataset("shapes", "", "val")
        >>> result = cfnseg.evaluate(weights.model, data, workers=0, limit=3)
        >>> 0 <= result.scores.miou <= 1, result.confusion.shape
        (True, (8, 8))
    """

    def see(image: Tensor, truth: Tensor) -> Segmented:
        with precision() if precision else torch.autocast("cpu", enabled=False):
            return segment(model, image, inference, truth=truth, confidence=details)

    where = {"device": device, "workers": workers, "rank": rank, "world": world}
    with in_mode(model):
        return count(
            see,
            dataset,
            **where,
            limit=limit,
            details=details,
            stopping=stopping,
            title=title,
            bands=bands_of(model),
        )


def count(
    see: Callable[[Tensor, Tensor], Segmented],
    dataset: Dataset,
    *,
    device: str | torch.device = "cpu",
    workers: int = 2,
    rank: int = 0,
    world: int = 1,
    limit: int | None = None,
    details: bool = False,
    stopping: Stopping | None = None,
    title: str = "",
    bands: Bands | None = None,
) -> Evaluation:
    """Score what ``see`` makes of an image (3, H, W) uint8, or of ``bands``, given its truth (H, W)
    for the loss.

    With ``details`` it has to give a confidence. Other arguments and errors as `evaluate`.
    """
    classes = len(dataset.labels)
    names = dataset.names[:limit]
    confusion = np.zeros((classes, classes), np.int64)
    counts = np.zeros((len(names), 3, classes), np.int64)
    presence = np.zeros((len(names), classes))
    loss = np.zeros(2)  # sum, pixels
    more, calibration = Details.zeros(len(names), classes), np.zeros((BINS, 3))
    share = len(range(rank, len(names), world))
    for index, image, truth in progress(
        whole_images(dataset, workers, rank, world, limit, bands), share, title
    ):
        if stopping and stopping.asked:
            break
        result = see(image, truth)
        loss += result.loss, int((truth != IGNORE).sum())
        if result.mask.is_cuda:
            matrix = device_confusion_matrix(truth.to(result.mask.device), result.mask, classes)
        else:
            matrix = confusion_matrix(truth.numpy(), result.mask.numpy(), classes)
        confusion += matrix
        counts[index] = counts_of(matrix)
        presence[index] = np.nan if result.presence is None else result.presence.cpu().numpy()
        if details:
            true, found = truth.numpy(), result.mask.cpu().numpy()
            more.add(index, count_details(true, found, classes))
            calibration += calibration_counts(
                result.confidence.cpu().numpy(), true == found, true != IGNORE
            )
    parts = [confusion, counts, presence, loss, *((calibration, *more.parts) if details else ())]
    combine(parts, stopping, device, world)
    mean = float(loss[0] / loss[1]) if loss[1] else float("nan")
    labels = None if np.isnan(presence).any() else presence
    return Evaluation(
        names, confusion, counts, mean, labels, *((more, calibration) if details else ())
    )


def combine(
    parts: Iterable[np.ndarray], stopping: Stopping | None, device: str | torch.device, world: int
) -> None:
    """Replace each part by its sum over the processes: every image is in one process only.

    Raises Stopped in every process if one was asked to stop.
    """
    asked = np.array([stopping.asked if stopping else 0])
    if world > 1:
        for part in (asked, *parts):
            moved = torch.from_numpy(part).to(device)
            dist.all_reduce(moved)
            part[:] = moved.cpu().numpy()
    if stopping and asked[0]:
        raise Stopped(stopping.asked or signal.SIGTERM)


def predicted(
    model: nn.Module, dataset: Dataset, index: int, inference: Inference = PLAIN
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8, truth and prediction (H, W) uint8 train ids of one image of a data
    set."""
    image, truth = read_sample(dataset, index, bands_of(model))
    with in_mode(model):
        mask = segment(model, torch.from_numpy(image).permute(2, 0, 1), inference).mask
    return as_picture(image), truth, mask.cpu().numpy()
