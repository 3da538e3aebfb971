"""Does the exported file say what the weights say?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cfnseg.data.dataset import Dataset, read_sample
from cfnseg.inference.augment import view_logits
from cfnseg.inference.predictor import segment
from cfnseg.inference.settings import Inference
from cfnseg.metrics.confusion import confusion_matrix, counts_of, scores_of
from cfnseg.models.segmenter import as_segmenter, bands_of
from cfnseg.progress import progress

WHOLE = Inference(max_pixels=2**62)  # as the file sees an image


@dataclass(frozen=True)
class Parity:
    """Agreement over images.

    Attributes:
        images: how many.
        equal: share of the pixels with the same class.
        least: the smallest such share of an image.
        logits: largest difference of a logit.
        miou: of the weights and of the file on the same images; nan without truth.
    """

    images: int
    equal: float
    least: float
    logits: float
    miou: tuple[float, float]

    def lines(self) -> list[str]:
        """For the person who exported."""
        own, file = (f"{100 * value:.2f}" for value in self.miou)
        return [
            f"{self.images} images: {self.equal:.4%} of the pixels equal (least {self.least:.4%}), "
            f"largest difference of a logit {self.logits:.2g}",
            f"mIoU of the weights {own}, of the file {file}",
        ][: 1 + (not np.isnan(self.miou[0]))]


Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def compare_with(
    model: nn.Module,
    run: Run,
    data: Dataset,
    images: int,
    size: tuple[int, int] | None = None,
    scored: bool = True,
) -> Parity:
    """Segment images by both.

    Args:
        model: the weights' own, folded or not, in eval mode on the CPU.
        run: the exported file, as `OnnxPredictor.run`.
        data: images, and truth if ``scored``.
        images: so many of them, evenly over the split.
        size: (H, W) that the file takes, None = any.
        scored: the classes of ``data`` are the model's.
    """
    chosen = np.unique(np.linspace(0, len(data.names) - 1, images).astype(int))
    classes, shares, pixels, logits = len(data.labels), [], [], 0.0
    counts = np.zeros((2, 3, classes), np.int64)
    for index in progress(chosen, len(chosen), "compare"):
        image, truth = read_sample(data, int(index), bands_of(model))
        if size:
            image, truth = cut(image, size), cut(truth, size)
        tensor = torch.from_numpy(image).permute(2, 0, 1)
        own = segment(model, tensor, WHOLE).mask.numpy()
        mask, _, found = run(np.ascontiguousarray(image))
        logits = max(logits, float(np.abs(found - _logits(model, tensor)).max()))
        shares.append((own == mask).mean())
        pixels.append(own.size)
        for side, result in zip(counts, (own, mask) if scored else ()):
            side += counts_of(confusion_matrix(truth, result, classes))
    own_miou, file_miou = (scores_of(side).miou if scored else float("nan") for side in counts)
    equal = float(np.average(shares, weights=pixels))
    return Parity(len(chosen), equal, float(min(shares)), logits, (own_miou, file_miou))


def cut(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The top left part of ``size`` (H, W) of an image or mask, repeated where it is smaller."""
    rows, columns = (np.arange(n) % m for n, m in zip(size, image.shape))
    return np.ascontiguousarray(image[rows][:, columns])


@torch.inference_mode()
def _logits(model: nn.Module, image: Tensor) -> np.ndarray:
    """(C, h, w) of the weights' own model, whole image."""
    segmenter, region = as_segmenter(model), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    return view_logits(segmenter, image[None], region, (segmenter.test_scale,))[0][0].numpy()
