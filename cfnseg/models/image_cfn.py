"""The image-level CFN: receive (1x1 conv) -> send (GAP) -> fuse over branches -> predict one label."""

from __future__ import annotations

from torch import Tensor, nn

from cfnseg.models.branch import SideBranch, send_image
from cfnseg.models.head import Head, predictor
from cfnseg.models.segmenter import Network, Output
from cfnseg.models.trunks import build_trunk


class ImageCFN(Network):
    """Any trunk with CFN branches and one label per image; without branches it is the plain net.

    Args:
        encoder: "cifar_net", "cifar_net_192", "cfn11" (`cfnseg.models.trunks`) or a timm backbone.
        num_classes: C.
        encoder_weights: of a timm backbone; see `cfnseg.models.encoder.load_encoder_weights`.
        strides: stages of a timm backbone that get a branch, the last the main one; the authors' nets have their own.
        width: K, channels of each branch.
        kernel: side branches' convolution, 1 or (the authors' CIFAR-100) 3; the main branch's is always 1.
        order, fusion, start, fusion_norm: see `cfnseg.models.head.Head`.
        dropout: probability before a predictor.
        main_only: the plain net.
        companions: DSN: a classifier on each lower stage, for a loss that fades; in training only.

    Source: the authors' configuration; MMM 2017 slides; DSN: Lee et al. 2015.
    """

    side_fades = True

    def __init__(self, encoder: str, num_classes: int, *, encoder_weights: str | None = None,
                 strides: tuple[int, ...] = (4, 8, 16, 32), width: int = 192, kernel: int = 1, order: str = "eflp", fusion: str = "lc",
                 start: str = "mean", fusion_norm: str = "none", dropout: float = 0.5, main_only: bool = False,
                 companions: bool = False) -> None:
        super().__init__()
        self.encoder = build_trunk(encoder, strides, encoder_weights)
        *lower, top = self.encoder.channels
        norm = getattr(self.encoder, "receive_norm", True)
        std = getattr(self.encoder, "head_std", 0.01)
        sides = [] if main_only else [SideBranch(c, width, kernel, norm) for c in lower]
        self.branches = nn.ModuleList([*sides, SideBranch(top, width, 1, norm)])
        self.image = Head(len(self.branches), width, num_classes, "eflp" if main_only else order, fusion="sum" if main_only else fusion,
                          start=start, norm="none" if main_only else fusion_norm, dropout=dropout, std=std)
        self.companions = nn.ModuleList(predictor(c, num_classes, dropout, std) for c in lower * companions)

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        """Predict.

        Args:
            images: (N, 3, H, W) RGB, uint8 in 0..255 or float in 0..1.
            region: of no meaning here.

        Returns:
            `Output` with image (N, C) single-label logits, and in training the companions' in ``side``; pixel is None.
        """
        stages = self.encoder(images)
        logits = self.image(self._sent(stages, images))[0].flatten(1)
        side = zip(self.companions, stages, self._strides) if self.training else ()
        return Output(None, logits, tuple(c(send_image(x, s, images.shape[-2:])).flatten(1) for c, x, s in side))

    @property
    def _strides(self) -> tuple[int, ...]:
        """Of each stage, for leaving out cells of padding; the authors' nets pad nothing, so any stride covers all cells."""
        return getattr(self.encoder, "strides", (1,) * len(self.encoder.channels))

    def _sent(self, stages: list[Tensor], images: Tensor) -> list[Tensor]:
        used = len(self.branches)
        return [send_image(branch(x), s, images.shape[-2:])
                for branch, x, s in zip(self.branches, stages[-used:], self._strides[-used:])]

    def fused(self, images: Tensor) -> Tensor:
        """(N, K) fused feature before dropout and classifier: CFN's image representation (EFLP only)."""
        return self.image.fusion(self._sent(self.encoder(images), images)).flatten(1)
