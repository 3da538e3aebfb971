"""What each branch adds to the logits of a CFN, exactly: its sum and its open ReLUs are linear."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.errors import UserError
from cfnseg.models.cfn import CFN, padded_region
from cfnseg.models.folding import FoldedCFN
from cfnseg.models.fusion.base import SingleChannelNorm
from cfnseg.models.parts import Head, cropped
from cfnseg.models.segmenter import in_mode


@torch.no_grad()
def contributions(
    model: nn.Module, images: Tensor, region: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Split the pixel logits z into a part of each branch and one of the biases, z = sum_s p_s + b.

    After the branches are summed, everything is affine but the ReLUs, and a ReLU is a factor of 0
    or 1 that the whole image decides. With these factors held, each branch passes the head alone,
    without biases, and the biases pass it without branches. An adaptive fusion's weights are held
    as well. A branch is what enters the fusion: its own ReLU (``receive="relu"``) and, in EPLF,
    its predictor's bias are part of it.

    Args:
        model: a `CFN`, not folded; it computes in eval mode and is left in the mode it was in.
        images, region: as `CFN.forward` takes them.

    Returns:
        parts (N, S, C, h, w) in the order of `CFN.branch_names`, and the biases' part
        (N, C, h, w). Their sum is ``model(images, region).pixel`` but for rounding. A displaced
        fusion draws its place once, as a forward pass does.

    Raises:
        UserError: the model is no CFN, or folded.

    Source: our construction. For one output it is gradient x input at the fusion (Shrikumar et
    al. 2016), whose sum is exact as the net behind is piecewise linear.
    """
    if not isinstance(model, CFN) or isinstance(model, FoldedCFN):
        kind = type(model).__name__
        raise UserError(f"only a CFN sums branches whose parts are exact; {kind} does not", code=2)
    head, size = model.pixel, images.shape[-2:]
    with in_mode(model):
        maps = model.receive(model.encoder(images), size)
        if not head.early_fusion:
            maps = head.predict(maps)
        place = padded_region(region, size, images, model.encoder.padding)
        place = head.fusion.placed(len(images), place)
        fused = functools.reduce(torch.add, head.fusion.terms(maps, place))
        gates: list[Tensor] = []
        _finish(head, fused, gates, biased=True)
        shape, parts = fused.shape, []
        del fused
        # one at a time, so that no more than one has K channels at the finest stride
        terms = head.fusion.terms(maps, place)
        for _, term in zip(maps, terms):
            part = _finish(head, term, gates, biased=False)
            parts.append(cropped(part, model.strides[0], size))
        bias = next(terms, term.new_zeros(())).expand(shape)
        bias = cropped(_finish(head, bias, gates, biased=True), model.strides[0], size)
    return torch.stack(parts, 1), bias


def _finish(head: Head, x: Tensor, gates: list[Tensor], biased: bool) -> Tensor:
    """(N, C, h, w): the head after its fusion's sum ``x`` (N, K, h, w), its ReLUs held.

    Args:
        gates: which values each ReLU passes, bool; an empty list gets those that ``x`` passes.
        biased: with the constants of norms and predictor.
    """
    held = iter(tuple(gates))

    def gated(x: Tensor) -> Tensor:
        if (gate := next(held, None)) is None:
            gates.append(gate := x > 0)
        return x * gate

    x = _normed(head.fusion.norm, x, biased)
    x = gated(x) if head.fusion.relu else x
    for block in head.refine:
        (depthwise, before), (pointwise, after) = block.around, block.across
        inner = gated(_normed(before, depthwise(x), biased))
        x = x + _normed(after, pointwise(inner), biased)
    if not head.early_fusion:
        return x
    predictor = head.predictors[0][-1]
    return F.conv2d(x, predictor.weight, predictor.bias if biased else None)


def _normed(norm: nn.Module, x: Tensor, biased: bool) -> Tensor:
    """``norm`` in eval mode, or its factor alone."""
    if isinstance(norm, nn.Identity):
        return x
    own = norm.norm if isinstance(norm, SingleChannelNorm) else norm
    assert isinstance(own, nn.BatchNorm2d)
    factor = own.weight / (own.running_var + own.eps).sqrt()
    shift = own.bias - own.running_mean * factor
    factor, shift = (v[:, None, None] for v in (factor, shift))
    return x * factor + shift if biased else x * factor
