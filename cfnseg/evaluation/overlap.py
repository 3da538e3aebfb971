"""Evaluation of sigmoid outputs: counts of each class alone, and thresholds with the best Dice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.data.bands import as_picture
from cfnseg.data.dataset import Dataset, Layers, read_sample
from cfnseg.data.labels import IGNORE
from cfnseg.data.loader import whole_images
from cfnseg.evaluation.segmentation import combine
from cfnseg.inference.layer_masks import Layered, segment_layers
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.inference.windows import Strip
from cfnseg.metrics.boundary import boundary_counts
from cfnseg.metrics.confusion import Scores, scores_of
from cfnseg.metrics.dice import GRID, best_thresholds, grid_counts, mask_counts, mean_dice
from cfnseg.metrics.ranking import mean_average_precision
from cfnseg.models.segmenter import bands_of, in_mode
from cfnseg.progress import progress

if TYPE_CHECKING:
    from cfnseg.training.stopping import Stopping


@dataclass(frozen=True)
class OverlapEvaluation:
    """What was counted over a split.

    Attributes:
        names: the images.
        thresholds: (C,) float64 probability from which on a pixel is of a class.
        counts: (images, 3, C) int64 true positives, truth and predicted pixels of each image.
        grid: (19, 3, C) int64, the same over all images at each threshold of
            `cfnseg.metrics.dice.GRID`.
        loss: mean binary cross-entropy over the counted (pixel, class) pairs.
        presence: (images, C) float64 image-head probabilities.
        boundary: (images, 3, C) int64 pixels in both boundaries, the truth's and the prediction's,
            or None if not counted.
    """

    names: list[str]
    thresholds: np.ndarray
    counts: np.ndarray
    grid: np.ndarray
    loss: float
    presence: np.ndarray
    boundary: np.ndarray | None = None

    @property
    def scores(self) -> Scores:
        """mIoU and its companions; the pixel accuracy means nothing here."""
        return scores_of(self.counts.sum(0))

    @property
    def dice(self) -> float:
        """Mean Dice over classes."""
        return mean_dice(self.counts.sum(0))

    @property
    def headline(self) -> float:
        """mIoU; higher is better."""
        return self.scores.miou

    def log_row(self) -> dict[str, float]:
        """What log.jsonl keeps."""
        return {"val_loss": self.loss, "val_miou": self.scores.miou, "val_dice": self.dice}

    def line(self) -> str:
        """The scores for the person who watches."""
        scores = self.scores
        return (
            f"validation loss {self.loss:.4f}  mIoU {100 * scores.miou:.1f} over "
            f"{scores.divisor} classes  Dice {100 * self.dice:.1f}"
        )

    def score(self) -> dict[str, Any]:
        """What the header of a weights file keeps; `cfnseg.models.weights.Weights.thresholds` reads
        the thresholds."""
        known = {"miou": self.scores.miou, "dice": self.dice}
        rounded = {name: round(value, 5) for name, value in known.items()}
        return rounded | {"thresholds": self.thresholds.tolist()}

    def image_map(self) -> tuple[float, np.ndarray]:
        """Mean average precision of the image head and the (C,) average precisions."""
        return mean_average_precision(self.presence, self.counts[:, 1] > 0)


def evaluate_layers(
    model: nn.Module,
    dataset: Dataset,
    *,
    thresholds: np.ndarray | None = None,
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
) -> OverlapEvaluation:
    """Score a model with sigmoid outputs on a split, as `cfnseg.evaluate` does for softmax.

    Args:
        model, dataset: as there; the data set's layers are those of `cfnseg.data.dataset.Layers`.
        thresholds: (C,). None = those with the best Dice on these images.
        details: count boundaries too; this needs thresholds.
        device, workers, rank, world, limit, precision, inference, stopping, title: as there.

    Raises:
        UserError, Stopped: as there. ValueError: details without thresholds.
    """
    if details and thresholds is None:
        raise ValueError("details: expected thresholds with them")
    data = dataset if isinstance(dataset, Layers) else Layers(dataset)
    classes, names = len(data.labels), data.names[:limit]
    counts = np.zeros((len(names), 3, classes), np.int64)
    each = np.zeros((len(names) * (thresholds is None), len(GRID), 3, classes), np.int32)
    grid = np.zeros((len(GRID), 3, classes), np.int64)
    presence, loss = np.zeros((len(names), classes)), np.zeros(2)  # sum, pairs
    edges = np.zeros((len(names) * details, 3, classes), np.int64)
    used = np.full(classes, 0.5) if thresholds is None else thresholds
    share = len(range(rank, len(names), world))
    with in_mode(model):
        for index, image, truth in progress(
            whole_images(data, workers, rank, world, limit, bands_of(model)), share, title
        ):
            if stopping and stopping.asked:
                break
            with precision() if precision else torch.autocast("cpu", enabled=False):
                result, found, lost = seen(model, image, truth.to(device), used, inference)
            loss += lost, int((truth != IGNORE).sum())
            grid += found
            presence[index] = result.presence.cpu().numpy()
            if thresholds is None:
                each[index] = found
            else:
                counts[index] = mask_counts(result.masks, truth.to(result.masks.device))
            if details:
                edges[index] = layer_boundaries(truth.numpy(), result.masks.cpu().numpy())
    combine([counts, each, grid, presence, loss, edges], stopping, device, world)
    if thresholds is None:
        used = best_thresholds(grid)
        place = np.abs(GRID[:, None] - used).argmin(0)
        counts = each[:, place, :, np.arange(classes)].transpose(1, 2, 0).astype(np.int64)
    mean = float(loss[0] / loss[1]) if loss[1] else float("nan")
    return OverlapEvaluation(names, used, counts, grid, mean, presence, edges if details else None)


def seen(
    model: nn.Module, image: Tensor, truth: Tensor, thresholds: np.ndarray, inference: Inference
) -> tuple[Layered, np.ndarray, float]:
    """An image's masks, its `grid_counts`, and its summed binary cross-entropy, given its layers
    (H, W, C) uint8 on the model's device."""
    counts: list[Tensor] = []
    losses: list[Tensor] = []

    def count(strip: Strip, logits: Tensor) -> None:
        layers = truth[strip.rows]
        target = layers.permute(2, 0, 1)
        counts.append(grid_counts(logits.sigmoid(), layers))
        weight = (target != IGNORE).float()
        losses.append(
            F.binary_cross_entropy_with_logits(
                logits, (target == 1).float(), weight, reduction="sum"
            ).double()
        )

    result = segment_layers(model, image, thresholds, inference, each=count)
    return result, torch.stack(counts).sum(0).cpu().numpy(), float(torch.stack(losses).sum())


def layer_boundaries(layers: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(3, C) int64 `boundary_counts` of each class alone, of layers (H, W, C) uint8 and masks
    (C, H, W) bool."""
    pairs = zip(np.ascontiguousarray(layers.transpose(2, 0, 1)), masks.astype(np.uint8))
    return np.stack([boundary_counts(truth, mask, 2)[:, 1] for truth, mask in pairs], 1)


def predicted_layers(
    model: nn.Module,
    dataset: Dataset,
    index: int,
    thresholds: np.ndarray,
    inference: Inference = PLAIN,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8, truth and prediction as layers (H, W, C) uint8 of one image."""
    data = dataset if isinstance(dataset, Layers) else Layers(dataset)
    image, truth = read_sample(data, index, bands_of(model))
    with in_mode(model):
        tensor = torch.from_numpy(image).permute(2, 0, 1)
        masks = segment_layers(model, tensor, thresholds, inference).masks
    return as_picture(image), truth, masks.permute(1, 2, 0).cpu().numpy().astype(np.uint8)
