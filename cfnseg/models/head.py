"""Fuse and predict, in either order: EFLP fuses features and predicts once, EPLF predicts per branch and fuses scores."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cfnseg.errors import unknown
from cfnseg.models.fusion import build_fusion

ORDERS = ("eflp", "eplf")


class Head(nn.Module):
    """From side branches to class scores, at every pixel or, given 1x1 maps, for the image (MMM 2017 slides).

    Args:
        branches: S.
        width: K.
        classes: C.
        order: "eflp" (early fusion, late prediction) or "eplf" (its opposite).
        fusion, grid, start, norm: see `cfnseg.models.fusion`. In EPLF the fusion's channels are the classes, it has no ReLU,
            and a locally-connected one's bias is a class prior by place.
        dropout: probability, of whole channels, before a predictor.
        std: of the normal distribution that the predictors' weights start from.
    """

    def __init__(self, branches: int, width: int, classes: int, order: str = "eflp", *, fusion: str = "lc",
                 grid: tuple[int, int] = (1, 1), start: str = "sum", norm: str = "none", dropout: float = 0.1,
                 std: float = 0.01) -> None:
        super().__init__()
        if order not in ORDERS:
            raise unknown("model.order", order, ORDERS)
        self.early_fusion = order == "eflp"
        self.predictors = nn.ModuleList(predictor(width, classes, dropout, std) for _ in range(1 if self.early_fusion else branches))
        self.fusion = build_fusion(fusion, branches=branches, width=width if self.early_fusion else classes, grid=grid, start=start,
                                   norm=norm, relu=self.early_fusion)

    def forward(self, branches: Sequence[Tensor], region: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Fuse and predict.

        Args:
            branches: S maps (N, K, h_s, w_s), the finest first.
            region: (N, 4) of the finest map in the full image, or None.

        Returns:
            Logits (N, C, h, w) at the finest map's size; and in EPLF the S branches' own (N, C, h_s, w_s), else none.
        """
        if self.early_fusion:
            return self.predictors[0](self.fusion(branches, region)), []
        scores = [predict(b) for predict, b in zip(self.predictors, branches)]
        return self.fusion(scores, region), scores


def predictor(width: int, classes: int, dropout: float, std: float) -> nn.Sequential:
    """Dropout of channels and a 1x1 convolution to class scores; on 1x1 maps that is the usual dropout and FC."""
    conv = nn.Conv2d(width, classes, 1)
    nn.init.normal_(conv.weight, std=std)
    nn.init.zeros_(conv.bias)
    return nn.Sequential(nn.Dropout2d(dropout), conv)
