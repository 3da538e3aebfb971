"""The loss of sigmoid outputs: binary cross-entropy of each pixel and class, Dice and Tversky."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cfnseg.config import Loss, split_terms
from cfnseg.data.labels import IGNORE
from cfnseg.models.segmenter import Output
from cfnseg.ops.dense_reference import upsample_logits
from cfnseg.training.loss import Totals, image_loss, over_processes
from cfnseg.training.loss_terms import MISSED, overlap_loss


def layer_loss(
    logits: Tensor, layers: Tensor, world: int = 1, totals: Totals | None = None
) -> Tensor:
    """Binary cross-entropy at the image's size, averaged over the counted (pixel, class) pairs of
    the *total* batch.

    Logits are upsampled image by image, (1, C, H, W) at a time. The gradient of the coarse logits
    is computed with the loss, and kept in place of what autograd would. Differentiable once.

    Args:
        logits: (N, C, h, w).
        layers: (N, H, W, C) uint8: 1, 0, or 255 for a pair that does not count.
        world, totals: see `cfnseg.training.loss.pixel_loss`; ``totals.pixels`` are pairs here.

    Returns:
        A scalar, float32; 0 with a zero gradient if nothing counts.
    """
    total = torch.stack([_Summed.apply(*pair) for pair in zip(logits, layers)]).sum()
    counted = (layers != IGNORE).sum().double()
    amount = totals.pixels if totals else over_processes(counted, world)
    return total / amount.clamp_min(1).float() * world


def summed(logits: Tensor, layers: Tensor) -> Tensor:
    """The sum of the losses of an image's counted pairs, float32.

    Args:
        logits: (C, h, w).
        layers: (H, W, C) uint8.
    """
    with torch.autocast(logits.device.type, enabled=False):
        upsampled = upsample_logits(logits[None].float(), tuple(layers.shape[:2]))[0]
        target = layers.permute(2, 0, 1).contiguous()
        return F.binary_cross_entropy_with_logits(
            upsampled, (target == 1).float(), (target != IGNORE).float(), reduction="sum"
        )


class _Summed(torch.autograd.Function):
    """`summed` with its gradient, computed at once."""

    @staticmethod
    def forward(ctx, logits, layers):
        with torch.enable_grad():
            own = logits.detach().float().requires_grad_()
            total = summed(own, layers)
        ctx.kind = logits.dtype
        ctx.save_for_backward(*torch.autograd.grad(total, own))
        return total.detach()

    @staticmethod
    def backward(ctx, scale):
        (grad,) = ctx.saved_tensors
        return (grad * scale).to(ctx.kind), None  # float16 could not hold 1 / pixels


def sigmoid_batch_loss(
    output: Output,
    layers: Tensor,
    settings: Loss,
    weight: None = None,
    world: int = 1,
    side: float = 0.0,
    region: Tensor | None = None,
    totals: Totals | None = None,
) -> Tensor:
    """`cfnseg.training.loss.batch_loss` with `layer_loss` in place of the cross-entropy.

    ``settings.terms`` are ce, dice, tversky.
    """

    def pixels(logits: Tensor) -> Tensor:
        loss = torch.zeros((), device=logits.device)
        for name, factor in split_terms(settings.terms):
            if name == "ce":
                term = layer_loss(logits, layers, world, totals)
            else:
                term = overlap_loss(logits, layers, MISSED if name == "tversky" else 0.5, world)
            loss = loss + factor * term
        return loss

    loss = pixels(output.pixel)
    for logits in output.side:
        loss = loss + side * pixels(logits)
    return loss + settings.image * image_loss(output.image, layers, region, world, totals)
