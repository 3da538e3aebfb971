"""The loss of a batch: cross-entropy over pixels + a weighted multi-label loss of the image head."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.config import Loss
from cfnseg.data.labels import IGNORE
from cfnseg.models.cfn import Output
from cfnseg.ops import dense_cross_entropy


def classes_present(mask: Tensor, classes: int) -> Tensor:
    """(N, C) float32 0 or 1: is the class in the mask? ``mask`` is (N, H, W) uint8 train ids."""
    present = torch.zeros(len(mask), 256, device=mask.device)
    return present.scatter_(1, mask.flatten(1).long(), 1.0)[:, :classes]


class Totals(NamedTuple):
    """What a loss of the total batch is divided by, where a part of it does not know.

    Attributes:
        pixels: 0-d, summed class weight of the counted pixels.
        images: images of this process.
    """

    pixels: Tensor
    images: int


def loss_totals(mask: Tensor, weight: Tensor | None, world: int = 1) -> Totals:
    """`Totals` of the total batch from this process's (N, H, W) uint8 train ids and the (C,) class weights."""
    per_id = torch.zeros(256, dtype=torch.float64, device=mask.device)
    per_id[:IGNORE] = 1 if weight is None else 0
    if weight is not None:
        per_id[: len(weight)] = weight.double()
    pixels = per_id[mask.int()].sum()
    if world > 1:
        dist.all_reduce(pixels)
    return Totals(pixels, len(mask))


def pixel_loss(logits: Tensor, mask: Tensor, settings: Loss, weight: Tensor | None, world: int = 1,
               totals: Totals | None = None) -> Tensor:
    """Cross-entropy averaged over the counted pixels of the *total* batch.

    Args:
        logits: (N, C, h, w).
        mask: (N, H, W) uint8 train ids.
        settings: ohem, label_smoothing.
        weight: (C,) class weights or None.
        world: processes that share the batch. Each divides by the pixels of all of them, times ``world``, so that averaging
            the gradients over processes gives that of the whole batch, however the ignored pixels are spread.
        totals: of the total batch where ``mask`` is a part of this process's; then the parts' losses add up.

    Returns:
        A scalar. With ``settings.ohem`` the mean over that share of hardest counted pixels in this process.
    """
    if settings.ohem:
        each = dense_cross_entropy(logits, mask, weight=weight, label_smoothing=settings.label_smoothing, reduction="none")
        counted = each[mask != IGNORE]
        return counted.topk(max(1, int(settings.ohem * len(counted)))).values.mean() if len(counted) else each.sum()
    total = dense_cross_entropy(logits, mask, weight=weight, label_smoothing=settings.label_smoothing, reduction="sum")
    amount = (totals or loss_totals(mask, weight, world)).pixels
    return total / amount.clamp_min(1e-12).to(total.dtype) * world


def batch_loss(output: Output, mask: Tensor, settings: Loss, weight: Tensor | None, world: int = 1, side: float = 0.0,
               totals: Totals | None = None) -> Tensor:
    """The loss that is minimised: pixel + ``settings.image`` x image head + ``side`` x that of each side output."""
    loss = pixel_loss(output.pixel, mask, settings, weight, world, totals)
    for logits in output.side:
        loss = loss + side * pixel_loss(logits, mask, settings, weight, world, totals)
    present = classes_present(mask, output.image.shape[1])
    share = len(mask) / (totals.images if totals else len(mask))
    # at weight 0 the head still takes part: with several processes every parameter needs a gradient
    return loss + settings.image * share * F.binary_cross_entropy_with_logits(output.image.float(), present)


def side_weight(model: nn.Module, settings: Loss, progress: float) -> float:
    """The weight of side outputs' losses at ``progress`` 0..1 of the run: constant, or fading to 0 where the model says so."""
    return settings.side * (1 - progress if getattr(model, "side_fades", False) else 1.0)
