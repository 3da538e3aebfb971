"""Which branch decided: each branch's part in the margin of a CFN's class at every cell."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from cfnseg.errors import UserError
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.inference.windows import window_rows
from cfnseg.models.cfn import CFN
from cfnseg.models.contributions import contributions
from cfnseg.models.segmenter import Output, as_segmenter


@dataclass(frozen=True)
class Explanation:
    """The branches' parts in the decision of every cell of an image.

    With the class k of the largest logit and the runner-up r, the margin z_k - z_r > 0 is the sum
    of the differences p_k - p_r of the branches' parts and the biases' (`contributions`). A
    difference ignores what a part adds to all classes alike, which decides nothing. The runner-up
    is the class that a smaller margin would give. The mean of all others would count what keeps
    classes away that nobody would take the cell for.

    Attributes:
        names: of the branches, "stride 4", ... "context", and "bias".
        classes: (h, w) int64 train ids k; cell (i, j) covers stride x stride pixels of the image.
        margins: (S + 1, h, w) float32 parts of z_k - z_r, in logits.
        stride: pixels per cell.
    """

    names: list[str]
    classes: np.ndarray
    margins: np.ndarray
    stride: int

    @property
    def deciding(self) -> np.ndarray:
        """(h, w) index of the name with the largest part in the margin."""
        return self.margins.argmax(0)

    def by_class(self, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums over the cells of each predicted class.

        Args:
            classes: C.

        Returns:
            (C, S + 1) int64 cells that each branch decides, and (C, S + 1) float64 sums of its
            parts in the margin.
        """
        count, flat = len(self.names), self.classes.ravel()
        decided = np.bincount(flat * count + self.deciding.ravel(), minlength=classes * count)
        sums = [np.bincount(flat, part.ravel(), classes) for part in self.margins]
        return decided.reshape(classes, count), np.stack(sums, 1)


class SplitCFN(nn.Module):
    """A CFN whose logits are its contributions, (N, (S + 1) C, h, w), for windows to blend."""

    def __init__(self, model: CFN) -> None:
        super().__init__()
        self.model, self.test_scale, self.encoder = model, model.test_scale, model.encoder

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        """As `CFN.forward`; the image logits are zeros (N, 1)."""
        parts, bias = contributions(self.model, images, region)
        pixel = torch.cat([parts, bias[:, None]], 1).flatten(1, 2)
        return Output(pixel, pixel.new_zeros(len(images), 1))


def check_explainable(model: nn.Module, inference: Inference = PLAIN) -> None:
    """Raise UserError (usage), in one line, if `explain` cannot take these."""
    if not isinstance(model, CFN):
        raise UserError("explain: only a CFN's branches have exact parts in its logits", code=2)
    if model.pixel.predictors[0][-1].out_channels < 2 or len(model.branch_names) < 2:
        raise UserError("explain: one branch or one class leaves nothing to decide", code=2)
    if inference.flip or len(inference.scales) > 1:
        raise UserError(
            "explain: a mean of probabilities is no sum of branches; leave out --flip and give "
            "one of --scales",
            code=2,
        )


@torch.inference_mode()
def explain(model: nn.Module, image: Tensor, inference: Inference = PLAIN) -> Explanation:
    """Explain one image of any size, in float32, about twice as long as `segment` takes.

    Args:
        model: a `CFN`.
        image: (3, H, W) uint8 RGB.
        inference: windows and one scale. Windows are blended linearly, so the parts still sum to
            the logits.

    Raises:
        UserError: see `check_explainable`.
    """
    check_explainable(model, inference)
    names = [*model.branch_names, "bias"]
    split, plain = as_segmenter(SplitCFN(model)), replace(inference, precision="32-true")
    classes, margins = [], []
    for rows, _, step in window_rows(split, image, plain):
        stride, parts = step, rows.unflatten(0, (len(names), -1))
        best = parts.sum(0).topk(2, 0).indices
        top, second = parts.gather(1, best.expand(len(names), *best.shape)).unbind(1)
        classes.append(best[0].cpu())
        margins.append((top - second).cpu())
    return Explanation(names, torch.cat(classes).numpy(), torch.cat(margins, 1).numpy(), stride)
