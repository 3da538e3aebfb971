"""The loss of a batch: cross-entropy over pixels + a weighted multi-label loss of the image head."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.config import Loss
from cfnseg.data.labels import IGNORE
from cfnseg.models.cfn import Output
from cfnseg.ops import dense_cross_entropy, dense_cross_entropy_sums


def classes_present(mask: Tensor, classes: int) -> Tensor:
    """(N, C) float32 0 or 1: is the class in the mask? ``mask`` is (N, H, W) uint8 train ids."""
    present = torch.zeros(len(mask), 256, device=mask.device)
    return present.scatter_(1, mask.flatten(1).long(), 1.0)[:, :classes]


def pixel_loss(logits: Tensor, mask: Tensor, settings: Loss, weight: Tensor | None, world: int = 1) -> Tensor:
    """Cross-entropy averaged over the counted pixels of the *total* batch.

    Args:
        logits: (N, C, h, w).
        mask: (N, H, W) uint8 train ids.
        settings: ohem, label_smoothing.
        weight: (C,) class weights or None.
        world: processes that share the batch. Each divides by the pixels of all of them, times ``world``, so that averaging
            the gradients over processes gives that of the whole batch, however the ignored pixels are spread.

    Returns:
        A scalar. With ``settings.ohem`` the mean over that share of hardest counted pixels in this process.
    """
    if settings.ohem:
        each = dense_cross_entropy(logits, mask, weight=weight, label_smoothing=settings.label_smoothing, reduction="none")
        counted = each[mask != IGNORE]
        return counted.topk(max(1, int(settings.ohem * len(counted)))).values.mean() if len(counted) else each.sum()
    total, amount = dense_cross_entropy_sums(logits, mask, weight=weight, label_smoothing=settings.label_smoothing)
    amount = amount.double()
    if world > 1:
        dist.all_reduce(amount)
    return total / amount.clamp_min(1e-12).to(total.dtype) * world


def batch_loss(output: Output, mask: Tensor, settings: Loss, weight: Tensor | None, world: int = 1, side: float = 0.0) -> Tensor:
    """The loss that is minimised: pixel + ``settings.image`` x image head + ``side`` x that of each side output."""
    loss = pixel_loss(output.pixel, mask, settings, weight, world)
    for logits in output.side:
        loss = loss + side * pixel_loss(logits, mask, settings, weight, world)
    present = classes_present(mask, output.image.shape[1])
    # at weight 0 the head still takes part: with several processes every parameter needs a gradient
    return loss + settings.image * F.binary_cross_entropy_with_logits(output.image.float(), present)


def side_weight(model: nn.Module, settings: Loss, progress: float) -> float:
    """The weight of side outputs' losses at ``progress`` 0..1 of the run: constant, or fading to 0 where the model says so."""
    return settings.side * (1 - progress if getattr(model, "side_fades", False) else 1.0)
