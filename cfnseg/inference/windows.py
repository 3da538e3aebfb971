"""Sliding windows: an image of any size as strips of logits from top to bottom, in memory that its
height does not change.

Windows overlap and are blended with Gaussian weights, standard deviation an eighth of the window
(nnU-Net, Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z), so that a window counts
where it sees most around a pixel. The weights are products of one along each axis, and normalised
along each axis they sum to 1 everywhere: nothing is divided afterwards. Only the rows that the
windows below still add to are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from cfnseg.inference.augment import view_logits
from cfnseg.inference.settings import Inference
from cfnseg.models.segmenter import Segmenter
from cfnseg.ops import dense_argmax, dense_cross_entropy, dense_scores
from cfnseg.ops.dense_reference import upsample_logits

STRIP_BYTES = 2**26  # of a strip's logits at the image's resolution, float32


@dataclass(frozen=True)
class Strip:
    """Logits of some rows of an image.

    Attributes:
        rows: the image rows that it decides.
        logits: (1, C, h, w) float32 cells of those rows, with one row of cells more at either end
            where the image goes on: upsampling needs it.
        size: (H', W) of the logits in pixels, as `cfnseg.ops` takes it.
        skip: rows of the H' that lie above ``rows``.
        image: (1, C) image logits, each class's maximum over the windows so far; the last strip has
            the image's.
        sigmoid: the logits are of sigmoid outputs.
    """

    rows: slice
    logits: Tensor
    size: tuple[int, int]
    skip: int
    image: Tensor
    sigmoid: bool = False

    @property
    def _inner(self) -> slice:
        return slice(self.skip, self.skip + self.rows.stop - self.rows.start)

    def classes(self) -> Tensor:
        """(rows, W) uint8 class of each pixel (int64 if C > 256)."""
        return dense_argmax(self.logits, self.size)[0, self._inner]

    def scores(self) -> tuple[Tensor, Tensor]:
        """The class of each pixel and its softmax probability, (rows, W) each."""
        classes, top = dense_scores(self.logits, self.size)
        return classes[0, self._inner], top[0, self._inner]

    def probabilities(self) -> Tensor:
        """(C, rows, W) float32 probabilities of all classes, by softmax or sigmoid."""
        logits = self.pixels()
        return logits.sigmoid() if self.sigmoid else logits.softmax(0)

    def pixels(self) -> Tensor:
        """(C, rows, W) float32 logits of the pixels."""
        return upsample_logits(self.logits.float(), self.size)[0, :, self._inner]

    def cross_entropy(self, truth: Tensor) -> Tensor:
        """Sum of the cross-entropy over the pixels of ``rows``, of the image's (H, W) train ids.
        255 counts for nothing."""
        target = torch.full(self.size, 255, dtype=torch.uint8, device=self.logits.device)
        target[self._inner] = truth[self.rows].to(target)
        return dense_cross_entropy(self.logits, target[None], reduction="sum")


def strips(
    model: Segmenter, image: Tensor, inference: Inference, sigmoid: bool = False
) -> Iterator[Strip]:
    """The strips of an image, from its first row to its last.

    Args:
        model: a segmentation model in eval mode. Its ``test_scale`` is a factor on
            ``inference.scales``.
        image: (3, H, W) uint8 RGB, or (C, H, W) of the model's bands, any H, W >= 1. Crops
            go to the model's device by themselves.
        inference: windows, scales, mirroring.
        sigmoid: the model's outputs are sigmoid.

    Yields:
        Strips of up to 64 MiB of upsampled logits; an image without windows comes in strips too.
    """
    height, width = image.shape[-2:]
    held, done = None, 0  # cells not handed out yet, with one row above them; image rows handed out
    for block, labels, stride in window_rows(model, image, inference, sigmoid):
        above = int(done > 0)
        held = block if held is None else torch.cat([held, block], 1)
        last = done // stride - above + held.shape[1] == -(-height // stride)
        step = max(1, STRIP_BYTES // (4 * held.shape[0] * width * stride))
        decided = held.shape[1] - (not last)  # a row is decided with its neighbour below
        for top in range(above, decided, step):
            bottom = min(top + step, decided)
            first, stop = max(0, top - 1), min(bottom + 1, held.shape[1])
            begin = done - (top - first) * stride
            rows = slice(done, min(done + (bottom - top) * stride, height))
            yield Strip(
                rows,
                held[None, :, first:stop],
                (min((stop - first) * stride, height - begin), width),
                done - begin,
                labels,
                sigmoid,
            )
            done = rows.stop
        held = held[:, max(0, decided - 1) :]


def window_rows(
    model: Segmenter, image: Tensor, inference: Inference, sigmoid: bool = False
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Finished rows of cells (C, n, w) float32 from top to bottom, (1, C) image logits so far, and
    the cells' stride."""
    height, width = image.shape[-2:]
    device = device_of(model, image)
    scales = tuple(s * model.test_scale for s in inference.scales)
    window = inference.window_for((height, width), model.test_scale)
    down, across = (
        starts(side, part, inference.overlap) for side, part in zip((height, width), window)
    )
    total = top = None
    for row, y in enumerate(down):
        for group in _batches([min(window[1], width - x) for x in across], inference.batch):
            crops = torch.stack(
                [image[:, y : y + window[0], across[i] : across[i] + window[1]] for i in group]
            )
            if device.type == "cuda" and not crops.is_cuda:
                crops = crops.pin_memory()  # the copy then overlaps with computation
            crops = crops.to(device, non_blocking=True)
            h, w = crops.shape[-2:]
            region = [
                [across[i] / width, y / height, (across[i] + w) / width, (y + h) / height]
                for i in group
            ]
            with inference.autocast(device):
                pixel, labels, stride = view_logits(
                    model,
                    crops,
                    torch.tensor(region, device=device),
                    scales,
                    inference.flip,
                    sigmoid,
                )
            if total is None:
                total = pixel.new_zeros(
                    pixel.shape[1], -(-window[0] // stride), -(-width // stride)
                )
                weights = [
                    [one.to(device) for one in blend_weights(*axis, stride)]
                    for axis in zip((down, across), (height, width), window)
                ]
            for i, logits in zip(group, pixel):
                left = across[i] // stride
                part = logits * weights[0][row][:, None] * weights[1][i]
                total[:, : part.shape[1], left : left + part.shape[2]] += part
            labels = labels.amax(0, keepdim=True)
            top = labels if top is None else torch.maximum(top, labels)
        if row + 1 == len(down):
            yield total[:, : -(-height // stride) - y // stride], top, stride
        else:
            finished = (down[row + 1] - y) // stride
            yield total[:, :finished].clone(), top, stride
            total[:, :-finished] = total[:, finished:].clone()
            total[:, -finished:] = 0


def device_of(model: nn.Module, image: Tensor) -> torch.device:
    """Where a model computes: where its parameters are, or without any, where the image is."""
    return next(model.parameters(), image).device


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows start along a side: on multiples of 32, so that their cells are cells of the
    whole image.

    The last one is moved back to end with the image, to which it lacks less than 32 pixels of its
    length.
    """
    step = max(32, int(window * (1 - overlap)) // 32 * 32)
    last = max(0, -(-(length - window) // 32) * 32)
    return sorted({min(start, last) for start in range(0, last + step, step)})


def blend_weights(begins: list[int], length: int, window: int, stride: int) -> list[Tensor]:
    """Each window's float32 weights at its cells along a side: a Gaussian over the sum of all
    windows' there.

    A Gaussian is exp(-8) at its window's ends, so no sum is near 0.
    """
    bells, total = [], torch.zeros(-(-length // stride))
    for begin in begins:
        cells = -(-min(window, length - begin) // stride)
        bells.append(torch.exp(-0.5 * ((torch.arange(cells) + 0.5 - cells / 2) / (cells / 8)) ** 2))
        total[begin // stride : begin // stride + cells] += bells[-1]
    return [
        bell / total[begin // stride : begin // stride + len(bell)]
        for begin, bell in zip(begins, bells)
    ]


def _batches(widths: list[int], batch: int) -> Iterator[list[int]]:
    """Indices of neighbours of one width, up to ``batch`` at a time."""
    for _, same in groupby(range(len(widths)), key=widths.__getitem__):
        same = list(same)
        yield from (same[i : i + batch] for i in range(0, len(same), batch))
