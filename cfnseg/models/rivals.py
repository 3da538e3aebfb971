"""The systems that CFN is compared with, on its own trunk: compositions of its parts (CFN.md 4 has their sources).

A new one is a function (encoder, classes, **settings of `CFN`) -> model, or a class with such arguments, and a line in RIVALS.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from cfnseg.models.branch import SideBranch, cropped, send_image
from cfnseg.models.cfn import CFN
from cfnseg.models.encoder import Encoder
from cfnseg.models.head import Head, predictor
from cfnseg.models.segmenter import Network, Output
from cfnseg.ops import upsample


def plain(encoder: str, classes: int, **settings) -> CFN:
    """The main branch only: what a CNN without fusion is."""
    return CFN(encoder, classes, **settings | {"strides": settings.get("strides", (32,))[-1:], "fusion": "sum", "order": "eflp"})


def dag_cnn(encoder: str, classes: int, **settings) -> CFN:
    """A classifier per branch, summed (Yang and Ramanan 2015): EPLF with fixed equal weights."""
    return CFN(encoder, classes, **settings | {"order": "eplf", "fusion": "sum"})


def hed(encoder: str, classes: int, **settings) -> CFN:
    """One learnt weight per branch over the branches' scores, and a loss on each branch as well (Xie and Tu 2015)."""
    return CFN(encoder, classes, **settings | {"order": "eplf", "fusion": "conv", "side_losses": True})


class FCN(Network):
    """Sum of class scores of every stage, without side branches (Long, Shelhamer, Darrell 2015).

    Scores are upsampled bilinearly to the finest stage and summed at once, where the paper's FCN-8s adds its skips stage by
    stage with learnt upsampling. Arguments as `CFN`, of which width, fusion, order, grid, start and fusion_norm
    mean nothing here.
    """

    def __init__(self, encoder: str, num_classes: int, *, encoder_weights: str | None = None,
                 strides: tuple[int, ...] = (4, 8, 16, 32), dropout: float = 0.1,
                 test_scale: float = 1.0, **_: object) -> None:
        super().__init__(test_scale)
        self.encoder = Encoder(encoder, strides, encoder_weights)
        self.pixel_scores = nn.ModuleList(predictor(c, num_classes, dropout, 0.01) for c in self.encoder.channels)
        self.image_scores = nn.ModuleList(predictor(c, num_classes, dropout, 0.01) for c in self.encoder.channels)

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        """See `CFN.forward`; ``region`` does not matter."""
        size, strides = images.shape[-2:], self.encoder.strides
        stages = self.encoder(images)
        finest = tuple(stages[0].shape[-2:])
        pixel = sum(upsample(score(stage), finest) for score, stage in zip(self.pixel_scores, stages))
        image = sum(score(send_image(stage, s, size)) for score, stage, s in zip(self.image_scores, stages, strides))
        return Output(cropped(pixel, strides[0], size), image.flatten(1))



class DSN(Network):
    """The plain net with a companion classifier and loss on every other stage (Lee et al. 2015), gone at inference.

    The companions' losses fade linearly to nothing over the training. Arguments as `CFN`; ``strides`` are the supervised
    stages, the last the main one.
    """

    side_fades = True  # read by cfnseg.training.loss

    def __init__(self, encoder: str, num_classes: int, *, encoder_weights: str | None = None,
                 strides: tuple[int, ...] = (4, 8, 16, 32), width: int = 128, dropout: float = 0.1,
                 test_scale: float = 1.0, **_: object) -> None:
        super().__init__(test_scale)
        self.encoder = Encoder(encoder, strides, encoder_weights)
        self.branch = SideBranch(self.encoder.channels[-1], width)
        self.pixel = Head(1, width, num_classes, fusion="sum", dropout=dropout)
        self.image = Head(1, width, num_classes, fusion="sum", dropout=dropout)
        self.companions = nn.ModuleList(predictor(c, num_classes, dropout, 0.01) for c in self.encoder.channels[:-1])

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        """See `CFN.forward`; in training ``side`` holds the companions' logits."""
        size, strides = images.shape[-2:], self.encoder.strides
        *lower, top = self.encoder(images)
        main = self.branch(top)
        pixel = cropped(self.pixel([main])[0], strides[-1], size)
        image = self.image([send_image(main, strides[-1], size)])[0].flatten(1)
        side = tuple(cropped(c(x), s, size) for c, x, s in zip(self.companions, lower, strides)) if self.training else ()
        return Output(pixel, image, side)



RIVALS: dict[str, Callable[..., nn.Module]] = {
    "plain": plain,
    "fcn": FCN,
    "dag_cnn": dag_cnn,
    "hed": hed,
    "dsn": DSN,
}
