"""A CFN for inference: norms and fusion weights become part of the convolutions.

In evaluation a batch norm is an affine map of each channel. Side branches, upsampling and fusion
are linear, so the map moves through them. Where no weight depends on place or image, the head is
one 1x1 convolution a stage and a sum (CFN.md 5).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cfnseg.models.cfn import CFN
from cfnseg.models.fusion import ConvFusion, LocallyConnectedFusion, SumFusion
from cfnseg.models.fusion.base import Fusion, SingleChannelNorm
from cfnseg.models.parts import Refine, SideBranch, send


class FoldedCFN(CFN):
    """A CFN whose pixel head alone is folded: the image head keeps the branches as trained.

    A linear branch commutes with the mean, so the image head receives what was sent.

    Attributes:
        as_trained: the branches before their weights changed; None if they did not.
    """

    as_trained: nn.ModuleList | None

    def sent(self, stages: list[Tensor], maps: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """See `CFN.sent`."""
        if self.as_trained is None:
            return super().sent(stages, maps, size)
        return [
            branch[0](send(branch.pooled(stage), stride, size))
            for branch, stage, stride in zip(self.as_trained, stages, self.strides)
        ]


@torch.no_grad()
def folded(model: nn.Module) -> nn.Module:
    """The same function of an image as ``model`` in evaluation, with fewer operations.

    Args:
        model: any network; one that is no `CFN`, or is folded, is returned as it is.

    Returns:
        A copy in evaluation mode. Its tensors are not those of a weights file.
    """
    if not isinstance(model, CFN) or isinstance(model, FoldedCFN):
        return model
    model = copy.deepcopy(model).eval()
    model.__class__, model.as_trained = FoldedCFN, None
    for part in model.modules():
        if isinstance(part, Refine):
            part.around, part.across = _merged(*part.around), _merged(*part.across)
        elif isinstance(part, SideBranch):
            _fold_branch(part)
    if type(model.pixel.fusion) in (SumFusion, ConvFusion, LocallyConnectedFusion):
        _fold_fusion(model)
    return model


def _fold_branch(branch: SideBranch) -> None:
    """Leave the convolution, and the ReLU where there is one."""
    if isinstance(branch[1], nn.BatchNorm2d):  # after: a factor of each output
        branch[0] = _merged(branch[0], branch[1])
        del branch[1]
    elif isinstance(branch[0], nn.BatchNorm2d):  # before: one of each input
        norm, conv = branch
        weight = conv.weight
        scale, shift = _affine(norm, weight.shape[1], weight.device)
        merged = nn.utils.skip_init(
            nn.Conv2d, *weight.shape[1::-1], 1, device=weight.device, dtype=weight.dtype
        )
        merged.weight.copy_(weight * scale.view(1, -1, 1, 1))
        merged.bias.copy_(weight.flatten(1) @ shift)
        branch[1] = merged
        del branch[0]


def _merged(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(conv, nn.Conv2d)
    return fuse_conv_bn_eval(conv, norm)


def _fold_fusion(model: FoldedCFN) -> None:
    """Replace the pixel fusion by a locally-connected one without norm."""
    head, before = model.pixel, model.pixel.fusion
    weight, bias = _grids(before)
    scale, shift = (x.view(-1, 1, 1) for x in _affine(before.norm, len(bias), bias.device))
    weight, bias = weight * scale, bias * scale + shift
    receivers = [*model.branches, *([] if model.context is None else [model.context])]
    linear = head.early_fusion and all(len(branch) == 1 for branch in receivers)
    if linear and weight.shape[2:] == (1, 1):  # all in the convolutions, which leaves a plain sum
        model.as_trained = copy.deepcopy(model.branches)
        for branch, w in zip(receivers, weight):
            branch[0].weight.mul_(w[..., None])
            branch[0].bias.mul_(w.flatten())
        weight = torch.ones_like(weight)
    size = len(receivers), len(bias), tuple(weight.shape[2:])
    after = LocallyConnectedFusion(*size, relu=before.relu).to(weight.device)
    after.delta.copy_(weight - after.start)
    after.bias.copy_(bias)
    head.fusion = after.eval()


def _grids(fusion: Fusion) -> tuple[Tensor, Tensor]:
    """Weight (S, K, gh, gw) and bias (K, gh, gw) over the full image."""
    if isinstance(fusion, LocallyConnectedFusion):
        return fusion.grids()
    branches, width = fusion.shape
    weight, bias = torch.full((branches,), fusion.start), torch.zeros(())
    if isinstance(fusion, ConvFusion):
        weight = fusion.delta + fusion.start
        bias = torch.zeros_like(weight[0]) if fusion.bias is None else fusion.bias
    return weight.view(-1, 1, 1, 1).expand(-1, width, 1, 1), bias.expand(width, 1, 1)


def _affine(norm: nn.Module, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(K,) scale and shift of a norm in evaluation."""
    if isinstance(norm, nn.Identity):
        return torch.ones(width, device=device), torch.zeros(width, device=device)
    batch_norm = norm.norm if isinstance(norm, SingleChannelNorm) else norm
    scale = (batch_norm.running_var + batch_norm.eps).rsqrt()
    if batch_norm.affine:
        scale = scale * batch_norm.weight
    shift = -batch_norm.running_mean * scale
    if batch_norm.affine:
        shift = shift + batch_norm.bias
    return scale.expand(width), shift.expand(width)
