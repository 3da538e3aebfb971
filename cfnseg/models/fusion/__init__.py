"""Fusions over side branches, one file each behind one interface: S branches in, one feature at the finest branch's size out.

A new one is a class in a file here with the arguments and the ``forward`` of `LocallyConnectedFusion`, and a line in FUSIONS.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from cfnseg.errors import unknown
from cfnseg.models.fusion.adaptive import AdaptiveFusion
from cfnseg.models.fusion.lc import LocallyConnectedFusion
from cfnseg.models.fusion.shared import ConvFusion, SumFusion
from cfnseg.models.fusion.shuffled import ShuffledFusion

FUSIONS: dict[str, Callable[..., nn.Module]] = {
    "lc": LocallyConnectedFusion,
    "sum": SumFusion,
    "conv": ConvFusion,
    "adaptive": AdaptiveFusion,
    "shuffled": ShuffledFusion,
}


def build_fusion(name: str, **settings) -> nn.Module:
    """The fusion called ``name`` with the arguments of `LocallyConnectedFusion`; UserError with the nearest names if there is none."""
    if name not in FUSIONS:
        raise unknown("model.fusion", name, FUSIONS)
    return FUSIONS[name](**settings)
