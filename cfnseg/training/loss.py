"""The loss of a batch: terms over pixels, cross-entropy alone if nothing else is set, + a weighted
multi-label loss of the image head."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from cfnseg.config import Loss, split_terms
from cfnseg.data.labels import IGNORE
from cfnseg.models.segmenter import Output, Segmenter
from cfnseg.ops import dense_cross_entropy, dense_cross_entropy_sums
from cfnseg.training.loss_terms import MISSED, focal_sum, lovasz_sum, overlap_loss


def classes_present(mask: Tensor, classes: int) -> Tensor:
    """(N, C) float32 0 or 1: is the class in the mask? ``mask`` is (N, H, W) uint8 train ids, or
    layers (N, H, W, C)."""
    if mask.ndim == 4:
        return (mask == 1).flatten(1, 2).any(1).float()
    present = torch.zeros(len(mask), 256, device=mask.device)
    return present.scatter_(1, mask.flatten(1).long(), 1.0)[:, :classes]


def over_processes(value: Tensor, world: int) -> Tensor:
    """The sum of ``value`` over the processes, in place; ``value`` itself where there is one."""
    if world > 1:
        dist.all_reduce(value)
    return value


class Totals(NamedTuple):
    """Divisors of the total batch's losses; a part of the batch cannot count them.

    Attributes:
        pixels: 0-d float64, summed class weight of the counted pixels.
        known: 0-d, images that train the image head.
        images: all images.
    """

    pixels: Tensor
    known: Tensor
    images: int


def loss_totals(
    mask: Tensor, region: Tensor | None, weight: Tensor | None, world: int = 1
) -> Totals:
    """`Totals` of the total batch from this process's share of it; see `pixel_loss` and
    `image_loss`."""
    pixels = pixel_weights(mask, weight).double().sum()
    known = known_images(mask, region).sum()
    # every process has as many images
    return Totals(over_processes(pixels, world), over_processes(known, world), len(mask) * world)


def pixel_weights(mask: Tensor, weight: Tensor | None) -> Tensor:
    """Float32 weight of each pixel of a uint8 mask of train ids, 0 where ignored.

    None = all weigh 1.
    """
    if weight is None:
        return (mask != IGNORE).float()
    return F.pad(weight.float(), (0, 256 - len(weight)))[mask.int()]


def pixel_loss(
    logits: Tensor,
    mask: Tensor,
    settings: Loss,
    weight: Tensor | None,
    world: int = 1,
    totals: Totals | None = None,
) -> Tensor:
    """The sum of ``settings.terms`` over the *total* batch, each times its factor.

    Args:
        logits: (N, C, h, w).
        mask: (N, H, W) uint8 train ids.
        settings: terms, ohem, label_smoothing.
        weight: (C,) class weights or None.
        world: processes that share the batch. Each divides by the pixels of all of them, times
            ``world``, so averaging the gradients over processes gives the whole batch's gradient,
            however the ignored pixels are spread.
        totals: of the total batch where ``mask`` is a part of this process's share; the parts'
            losses then add up.

    Returns:
        A scalar.
    """

    def term(name: str) -> Tensor:
        match name:
            case "ce":
                return cross_entropy(logits, mask, settings, weight, world, totals)
            case "focal":
                weights = pixel_weights(mask, weight)
                total, own = focal_sum(logits, mask)(weights), weights.double().sum()
                amount = totals.pixels if totals else over_processes(own, world)
                return total / amount.clamp_min(1e-12).to(total.dtype) * world
            case "lovasz":
                images = totals.images if totals else len(mask) * world
                return lovasz_sum(logits, mask) / images * world
            case _:
                missed = MISSED if name == "tversky" else 0.5
                return overlap_loss(logits, mask, missed, world)

    (name, factor), *others = split_terms(settings.terms)
    loss = factor * term(name)
    for name, factor in others:
        loss = loss + factor * term(name)
    return loss


def cross_entropy(
    logits: Tensor,
    mask: Tensor,
    settings: Loss,
    weight: Tensor | None,
    world: int = 1,
    totals: Totals | None = None,
) -> Tensor:
    """Cross-entropy averaged over the counted pixels of the total batch; see `pixel_loss`.

    With ``settings.ohem`` the mean over that share of hardest counted pixels of the total batch.
    """
    if settings.ohem:
        each = dense_cross_entropy(
            logits, mask, weight=weight, label_smoothing=settings.label_smoothing, reduction="none"
        )
        kept = hardest(each, mask != IGNORE, settings.ohem, world)
        amount = over_processes(
            torch.where(kept, pixel_weights(mask, weight), 0).double().sum(), world
        )
        return torch.where(kept, each, 0).sum() / amount.clamp_min(1e-12).to(each.dtype) * world
    total, own = dense_cross_entropy_sums(
        logits, mask, weight=weight, label_smoothing=settings.label_smoothing
    )
    amount = totals.pixels if totals else over_processes(own.double(), world)
    return total / amount.clamp_min(1e-12).to(total.dtype) * world


@torch.no_grad()
def hardest(each: Tensor, counted: Tensor, share: float, world: int = 1) -> Tensor:
    """Which pixels are the hardest ``share`` of the total batch?

    Exact, the same for any number of processes, and without a host synchronisation: no shape
    depends on the data. The k-th largest loss is found digit by digit of its bit pattern, as the
    patterns of floats >= 0 are ordered like the floats. Processes exchange 4,097 counts.

    Args:
        each: (N, H, W) float32 loss of each pixel, >= 0 or nan (nan is the hardest).
        counted: (N, H, W) bool; the others are never kept.
        share: above 0 up to 1. k = max(1, floor(share x counted pixels of all processes)).
        world: processes that share the batch.

    Returns:
        (N, H, W) bool; more than k only where further losses equal the k-th.
    """
    k = (share * over_processes(counted.sum(), world).double()).long().clamp_min(1)
    bits = each.float().view(torch.int32) & 0x7FFFFFFF  # without the sign, which nan and 0 may have
    bits = torch.where(counted, bits, -1)
    ranked = bits.flatten().sort().values
    threshold = torch.zeros((), dtype=torch.int32, device=each.device)
    for digits, shift in ((11, 20), (10, 10), (10, 0)):
        steps = torch.arange(1 << digits, dtype=torch.int32, device=each.device)
        reached = over_processes(
            len(ranked) - torch.searchsorted(ranked, threshold + (steps << shift)), world
        )
        threshold = threshold + ((((reached >= k).sum() - 1).clamp_min(0) << shift).int())
    return bits >= threshold


UNLABELLED = 0.2  # see `known_images`


def known_images(mask: Tensor, region: Tensor | None) -> Tensor:
    """(N,) bool: is an image labelled well enough to say which classes are not in it?

    Not if more than a fifth is unlabelled: pixels that are ignored and no padding. What hides there
    could be any class. A smaller part is taken for what data sets leave void on purpose: borders,
    the ego car, things that are none of the classes. In one epoch of training crops the rule keeps
    98 % of the CamVid images, 93 % of 30 VOC images (their border band is 4 % of an image), all of
    IDD-Lite and 93 % of Cityscapes at 256 x 256, whose recovered labels have more void.

    Args:
        mask: (N, H, W) uint8 train ids, or layers (N, H, W, C): a pixel that any ignores counts.
        region: (N, 4) where each crop lies in its image; what lies outside is padding. None =
            nothing is.
    """
    mask = mask.amax(-1) if mask.ndim == 4 else mask
    ignored = (mask == IGNORE).sum((1, 2)).double()
    real = torch.full_like(ignored, mask[0].numel())
    if region is not None:
        start, stop = region.double().view(-1, 2, 2).unbind(1)
        real = real * ((stop.clamp_max(1) - start.clamp_min(0)) / (stop - start)).prod(1)
    return ignored - (mask[0].numel() - real) <= UNLABELLED * real


def image_loss(
    logits: Tensor,
    mask: Tensor,
    region: Tensor | None = None,
    world: int = 1,
    totals: Totals | None = None,
) -> Tensor:
    """Multi-label cross-entropy of the image head, averaged over the (image, class) pairs of the
    total batch.

    Args:
        logits: (N, C).
        mask: (N, H, W) uint8 train ids; images that are not `known_images` are left out.
        region: (N, 4) where each crop lies in its image, or None.
        world: processes that share the batch; see `pixel_loss`.
        totals: see `pixel_loss`.

    Returns:
        A scalar, 0 with a zero gradient if every image is left out.
    """
    known = known_images(mask, region)
    images = totals.known if totals else over_processes(known.sum(), world)
    present = classes_present(mask, logits.shape[1])
    each = F.binary_cross_entropy_with_logits(logits.float(), present, reduction="none")
    return (
        torch.where(known[:, None], each, 0).sum() / (images * logits.shape[1]).clamp_min(1) * world
    )


def batch_loss(
    output: Output,
    mask: Tensor,
    settings: Loss,
    weight: Tensor | None = None,
    world: int = 1,
    side: float = 0.0,
    region: Tensor | None = None,
    totals: Totals | None = None,
) -> Tensor:
    """The loss that is minimised: pixel + ``settings.image`` x image head + ``side`` x that of each
    side output."""
    loss = pixel_loss(output.pixel, mask, settings, weight, world, totals)
    for logits in output.side:
        loss = loss + side * pixel_loss(logits, mask, settings, weight, world, totals)
    # at weight 0 the head still takes part: with several processes every parameter needs a gradient
    return loss + settings.image * image_loss(output.image, mask, region, world, totals)


def side_weight(model: Segmenter, settings: Loss, progress: float) -> float:
    """The weight of side outputs' losses at ``progress`` 0..1 of the run: constant, or fading to 0
    where the model says so."""
    return settings.side * (1 - progress if model.side_fades else 1.0)
