"""Losses that weigh mistakes otherwise than cross-entropy does: focal, Dice, Tversky, Lovasz.

Each is that of segmentation-models-pytorch on logits at the image's size. One image at a time is
upsampled, and again in backward, so memory does not grow with the batch. Focal never upsamples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from segmentation_models_pytorch.losses import LovaszLoss
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cfnseg.data.labels import IGNORE
from cfnseg.ops import dense_cross_entropy
from cfnseg.ops.dense_reference import upsample_logits

FOCUS = 2.0  # gamma of Lin et al. 2017
MISSED = 0.7  # beta of Salehi et al. 2017: the weight of missed pixels; of false ones 1 - beta


def focal_sum(logits: Tensor, mask: Tensor) -> Callable[[Tensor], Tensor]:
    """Focal loss (Lin et al. 2017, section 3): (1 - p) ** 2 * -ln p of each pixel's true class.

    Args:
        logits: (N, C, h, w).
        mask: (N, H, W) uint8 train ids.

    Returns:
        (pixel weights (N, H, W)) -> the weighted sum, a scalar.
    """
    each = dense_cross_entropy(logits, mask, reduction="none")
    return lambda weights: ((1 - (-each).exp()) ** FOCUS * each * weights).sum()


def soft_counts(logits: Tensor, mask: Tensor) -> Tensor:
    """(3, C) float32 sums of probabilities over counted pixels: of the true class, of all
    predictions, and true pixels.

    Args:
        logits: (N, C, h, w).
        mask: (N, H, W) uint8 train ids; or layers (N, H, W, C) of sigmoid outputs.
    """
    parts = [checkpoint(_soft_counts, *pair, use_reentrant=False) for pair in zip(logits, mask)]
    return torch.stack(parts).sum(0)


def _soft_counts(logits: Tensor, mask: Tensor) -> Tensor:
    if mask.ndim == 3:
        layers = mask.permute(2, 0, 1)
        chances = torch.where(layers != IGNORE, _upsampled(logits, mask)[0].sigmoid(), 0)
        true = (layers == 1).to(chances)
        return torch.stack([part.sum((1, 2)) for part in (chances * true, chances, true)])
    chances = _upsampled(logits, mask).softmax(1)[0].flatten(1)
    ids, counted = mask.flatten(), (mask != IGNORE).flatten()
    chances = torch.where(counted, chances, 0)
    ids = torch.where(counted, ids, 0).long()
    hit = chances.gather(0, ids[None])[0]
    zeros = chances.new_zeros(len(chances))
    return torch.stack(
        [
            zeros.index_add(0, ids, hit),
            chances.sum(1),
            zeros.index_add(0, ids, counted.to(chances)),
        ]
    )


def overlap_loss(logits: Tensor, mask: Tensor, missed: float = 0.5, world: int = 1) -> Tensor:
    """1 - Tversky index of soft counts of the *total* batch, averaged over all classes.

    A class without a true pixel adds 0. See Salehi et al. 2017, equation 2; 0.5 is Dice (Milletari
    et al. 2016, without the squares).

    Args:
        logits: (N, C, h, w).
        mask: (N, H, W) uint8 train ids, or layers (N, H, W, C).
        missed: weight of missed pixels; 1 - missed that of false ones.
        world: processes that share the batch. They exchange 3 C sums, so averaging the gradients
            over processes gives the whole batch's gradient.
    """
    own = soft_counts(logits, mask)
    if world > 1:
        everywhere = own.detach().clone()
        dist.all_reduce(everywhere)
        # the value of all processes, the own share's gradient; times world, as they average it
        own = everywhere + world * (own - own.detach())
    hit, found, true = own
    index = hit / ((1 - missed) * found + missed * true).clamp_min(1e-7)
    return torch.where(true > 0, 1 - index, 0).mean()


def lovasz_sum(logits: Tensor, mask: Tensor) -> Tensor:
    """Sum over images of the Lovasz softmax loss (Berman et al. 2018, equation 11).

    Each image's is the mean over the classes in it, 0 for an image without a counted pixel or where
    there is one class.

    Args:
        logits: (N, C, h, w).
        mask: (N, H, W) uint8 train ids.
    """
    parts = [checkpoint(_lovasz, *pair, use_reentrant=False) for pair in zip(logits, mask)]
    return torch.stack(parts).sum()


def _lovasz(logits: Tensor, mask: Tensor) -> Tensor:
    full = _upsampled(logits, mask)
    if len(logits) == 1 or not bool((mask != IGNORE).any()):
        return full.sum() * 0
    return LovaszLoss("multiclass", ignore_index=IGNORE)(full, mask[None].long())


def _upsampled(logits: Tensor, mask: Tensor) -> Tensor:
    """(1, C, H, W) float32 of one image's logits (C, h, w)."""
    return upsample_logits(logits[None].float(), tuple(mask.shape[:2]))
