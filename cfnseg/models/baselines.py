"""Baselines on CFN's encoder and side branches (CFN.md 4 has their sources).

A new one is a function (encoder, classes, **settings of `CFN`) -> model, or a class with these
arguments, and a line in BASELINES.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from cfnseg.data.bands import Bands
from cfnseg.models.cfn import CFN
from cfnseg.models.encoder import Encoder
from cfnseg.models.parts import Head, SideBranch, cropped, predictor, send
from cfnseg.models.segmenter import Network, Output
from cfnseg.ops import upsample


def plain(encoder: str, classes: int, **settings) -> CFN:
    """Baseline: the deepest branch, no fusion."""
    own = {"strides": settings.get("strides", (32,))[-1:], "context": False}
    return CFN(encoder, classes, **settings | own | {"fusion": "sum", "order": "eflp"})


def dag_cnn(encoder: str, classes: int, **settings) -> CFN:
    """A classifier per branch, summed (Yang and Ramanan 2015): EPLF with fixed equal weights."""
    return CFN(encoder, classes, **late(settings) | {"fusion": "sum"})


def hed(encoder: str, classes: int, **settings) -> CFN:
    """One learnt weight per branch's scores, and a loss on each branch (Xie and Tu 2015)."""
    return CFN(encoder, classes, **late(settings) | {"fusion": "conv", "side_losses": True})


class FCN(Network):
    """Sum of the class scores of every stage, no side branches (Long, Shelhamer, Darrell 2015).

    Scores are upsampled bilinearly to the finest stage and summed at once. The paper's FCN-8s adds
    its skips stage by stage, with learnt upsampling. A stage finer than stride 4 is not used. Other
    arguments of `CFN` are ignored.
    """

    def __init__(
        self,
        encoder: str,
        num_classes: int,
        *,
        encoder_weights: str | None = None,
        strides: tuple[int, ...] = (4, 8, 16, 32),
        dropout: float = 0.1,
        test_scale: float = 1.0,
        bands: Bands | None = None,
        **_: object,
    ) -> None:
        super().__init__(test_scale)
        self.encoder = Encoder(encoder, from_four(strides), encoder_weights, bands=bands)
        self.pixel_scores, self.image_scores = (
            nn.ModuleList(predictor(c, num_classes, dropout) for c in self.encoder.channels)
            for _ in range(2)
        )

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        """See `CFN.forward`; ``region`` is ignored."""
        size, strides = images.shape[-2:], self.encoder.strides
        stages = self.encoder(images)
        finest = tuple(stages[0].shape[-2:])
        pixel = sum(upsample(score(x), finest) for score, x in zip(self.pixel_scores, stages))
        sent = [send(x, s, size) for x, s in zip(stages, strides)]
        image = sum(score(x) for score, x in zip(self.image_scores, sent))
        return Output(cropped(pixel, strides[0], size), image.flatten(1))


class DSN(Network):
    """`plain`, and in training a companion classifier on every other stage (Lee et al. 2015).

    The weight of the companions' losses falls linearly to 0 over the run. Arguments as `CFN`;
    ``strides`` are the supervised stages, those finer than 4 left out, and the last has the branch.
    """

    side_fades = True

    def __init__(
        self,
        encoder: str,
        num_classes: int,
        *,
        encoder_weights: str | None = None,
        strides: tuple[int, ...] = (4, 8, 16, 32),
        width: int = 128,
        receive: str = "linear",
        fusion_norm: str = "channel",
        refine: int = 1,
        dropout: float = 0.0,
        test_scale: float = 1.0,
        bands: Bands | None = None,
        **_: object,
    ) -> None:
        super().__init__(test_scale)
        self.encoder = Encoder(encoder, from_four(strides), encoder_weights, bands=bands)
        *lower, top = self.encoder.channels
        self.branch = SideBranch(top, width, linear=receive == "linear")
        own: dict[str, Any] = {"norm": fusion_norm, "refine": refine}
        self.pixel = Head(1, width, num_classes, fusion="sum", dropout=dropout, **own)
        self.image = Head(1, width, num_classes, fusion="sum", dropout=dropout)
        self.companions = nn.ModuleList(predictor(c, num_classes, dropout) for c in lower)

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        """See `CFN.forward`; in training ``side`` holds the companions' logits."""
        size, (*finer, stride) = images.shape[-2:], self.encoder.strides
        *lower, top = self.encoder(images)
        branch = self.branch(top)
        pixel, _ = self.pixel([branch])
        image, _ = self.image([send(branch, stride, size)])
        pairs = zip(self.companions, lower, finer) if self.training else ()
        side = tuple(cropped(companion(x), s, size) for companion, x, s in pairs)
        return Output(cropped(pixel, stride, size), image.flatten(1), side)


def late(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of `CFN` for class scores of branches with ReLU, fused as they are."""
    strides = from_four(settings.get("strides", (4, 8, 16, 32)))
    own = {"receive": "relu", "context": False, "fusion_norm": "none", "strides": strides}
    return settings | own | {"order": "eplf"}


def from_four(strides: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of 4 or more: scores at a finer one cost more than all others."""
    return tuple(s for s in strides if s >= 4)


BASELINES: dict[str, Callable[..., Network]] = {
    "plain": plain,
    "fcn": FCN,
    "dag_cnn": dag_cnn,
    "hed": hed,
    "dsn": DSN,
}
