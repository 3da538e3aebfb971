"""CFN for classification: receive, send by global average pooling, fuse, predict one class."""

from __future__ import annotations

from torch import Tensor, nn

from cfnseg.models.authors import build_encoder
from cfnseg.models.parts import Head, SideBranch, predictor, send
from cfnseg.models.segmenter import Network, Output


class ImageCFN(Network):
    """CFN branches on any encoder, and one class per image.

    Args:
        encoder: "cifar_net", "cifar_net_192", "cfn11" (`cfnseg.models.authors`) or a timm backbone.
        num_classes: C.
        encoder_weights: of a timm backbone; see `cfnseg.models.pretrained.load_encoder_weights`.
        strides: stages of a timm backbone with a branch; the authors' nets have their own.
        width: K, channels of every branch.
        kernel: convolution of the side branches: 1, or 3 (the authors' CIFAR-100 net). The deepest
            branch always has 1.
        order, fusion, start, fusion_norm, dropout: see `cfnseg.models.parts.Head`.
        main_only: the deepest branch, no fusion.
        companions: DSN: a classifier on each lower stage in training, for a loss that fades.

    Source: the authors' configuration; MMM 2017 slides; DSN: Lee et al. 2015.
    """

    side_fades = True

    def __init__(
        self,
        encoder: str,
        num_classes: int,
        *,
        encoder_weights: str | None = None,
        strides: tuple[int, ...] = (4, 8, 16, 32),
        width: int = 192,
        kernel: int = 1,
        order: str = "eflp",
        fusion: str = "lc",
        start: str = "mean",
        fusion_norm: str = "none",
        dropout: float = 0.5,
        main_only: bool = False,
        companions: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = build_encoder(encoder, strides, encoder_weights)
        *lower, top = self.encoder.channels
        norm, std = self.encoder.receive_norm, self.encoder.head_std
        sides = [] if main_only else [SideBranch(c, width, kernel, norm) for c in lower]
        self.branches = nn.ModuleList([*sides, SideBranch(top, width, 1, norm)])
        if main_only:
            order, fusion, fusion_norm = "eflp", "sum", "none"
        settings = {"start": start, "norm": fusion_norm, "dropout": dropout, "std": std}
        shape = len(self.branches), width, num_classes, order
        self.image = Head(*shape, fusion=fusion, **settings)
        self.companions = nn.ModuleList(
            predictor(c, num_classes, dropout, std) for c in lower * companions
        )

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        """Predict.

        Args:
            images: (N, 3, H, W) RGB, uint8 in 0..255 or float in 0..1.
            region: ignored.

        Returns:
            `Output` with image (N, C), single-label logits, and in training the companions' logits
            (N, C) in ``side``; pixel is None.
        """
        size, stages = images.shape[-2:], self.encoder(images)
        logits, _ = self.image(self._sent(stages, size))
        strides = self.encoder.strides
        lower = zip(self.companions, stages, strides) if self.training else ()
        side = tuple(companion(send(x, s, size)).flatten(1) for companion, x, s in lower)
        return Output(None, logits.flatten(1), side)

    def _sent(self, stages: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """The branches' maps (N, K, 1, 1), received and sent."""
        used = slice(-len(self.branches), None)
        pairs = zip(self.branches, stages[used], self.encoder.strides[used])
        return [send(receive(x), s, size) for receive, x, s in pairs]

    def fused(self, images: Tensor) -> Tensor:
        """(N, K) fused feature before dropout and classifier: CFN's image representation (EFLP)."""
        sent = self._sent(self.encoder(images), images.shape[-2:])
        return self.image.fuse(sent).flatten(1)
