"""Fusions of side branches. A new one is a subclass of `Fusion` in a file here and a line below."""

from __future__ import annotations

from cfnseg.errors import unknown
from cfnseg.models.fusion.adaptive import AdaptiveFusion
from cfnseg.models.fusion.base import ConvFusion, Fusion, SumFusion
from cfnseg.models.fusion.displaced import DisplacedFusion
from cfnseg.models.fusion.lc import LocallyConnectedFusion

FUSIONS: dict[str, type[Fusion]] = {
    "lc": LocallyConnectedFusion,
    "sum": SumFusion,
    "conv": ConvFusion,
    "adaptive": AdaptiveFusion,
    "displaced": DisplacedFusion,
}


def build_fusion(name: str, **settings) -> Fusion:
    """The fusion ``name`` with the arguments of `Fusion`; UserError for an unknown name."""
    if name not in FUSIONS:
        raise unknown("model.fusion", name, FUSIONS)
    return FUSIONS[name](**settings)
