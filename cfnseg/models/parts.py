"""Parts of a CFN: receive (`SideBranch`), send (`send`), fuse and predict (`Head`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.errors import unknown
from cfnseg.models.fusion import build_fusion

ORDERS = ("eflp", "eplf")


class SideBranch(nn.Sequential):
    """Receive: F_s = conv_K(BN(P_s)), or ReLU([BN] conv_K(P_s)).

    The convolution is 1x1, which keeps a branch cheap (MMM 2017 slides, "efficient side branches").
    The batch norm after it follows the authors' ImageNet net. A linear branch commutes with
    upsampling, as in SegFormer's decoder (Xie et al. 2021, section 3.2). Its norm stands before,
    on the stage's few channels, so that no stage outshouts another in the fusion's sum; in
    evaluation it is part of the convolution.

    Args:
        in_channels: channels of the stage.
        width: K, channels of every branch.
        kernel: 1, or 3 in the authors' CIFAR-100 net.
        norm: batch norm. Without it (the authors' CIFAR nets) the convolution has a bias and its
            weights start N(0, .05).
        linear: norm and convolution alone, without gain and bias: convolution and fusion have them.
        pool: the stage is averaged over squares of this side before.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        kernel: int = 1,
        norm: bool = True,
        linear: bool = False,
        pool: int = 1,
    ) -> None:
        plain = linear or norm
        conv = nn.Conv2d(in_channels, width, kernel, padding=kernel // 2, bias=not plain)
        relu = [nn.BatchNorm2d(width)] * norm + [nn.ReLU(inplace=True)]
        parts = [nn.BatchNorm2d(in_channels, affine=False), conv] if linear else [conv, *relu]
        super().__init__(*parts)
        self.pool = pool
        if linear:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
        elif norm:
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        else:
            nn.init.normal_(conv.weight, std=0.05)
            nn.init.zeros_(conv.bias)

    def forward(self, stage: Tensor) -> Tensor:
        """(N, C, h, w) to (N, K, h / pool, w / pool)."""
        return super().forward(self.pooled(stage))

    def pooled(self, stage: Tensor) -> Tensor:
        """(N, C, h / pool, w / pool): what the first part sees."""
        return F.avg_pool2d(stage, self.pool) if self.pool > 1 else stage


class Refine(nn.Module):
    """x + BN(conv1x1(ReLU(BN(depthwise 3x3(x))))); at the start the last norm's gain is 0: x.

    A depthwise-separable residual block (Howard et al. 2017; Sandler et al. 2018) on the fused map.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.BatchNorm2d(width),
        )
        self.across = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
        nn.init.kaiming_normal_(self.around[0].weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.across[0].weight, nonlinearity="linear")
        nn.init.zeros_(self.across[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, h, w) to the same shape."""
        return x + self.across(F.relu(self.around(x)))


def send(branch: Tensor, stride: int, size: Sequence[int]) -> Tensor:
    """Send to the image head: global average pooling over the cells that cover the image.

    The pixel head needs no such function: its fusion upsamples the branches itself.

    Args:
        branch: (N, K, h, w) at ``stride``, possibly of a padded image.
        stride: pixels per cell.
        size: (H, W) of the image without padding.

    Returns:
        (N, K, 1, 1), a map of one cell, so that both heads share one fusion.
    """
    return cropped(branch, stride, size).mean((2, 3), keepdim=True)


def cropped(cells: Tensor, stride: int, size: Sequence[int]) -> Tensor:
    """The (N, C, ceil(H / s), ceil(W / s)) cells that cover an image of ``size`` (H, W)."""
    height, width = ((n + stride - 1) // stride for n in size)
    if torch.compiler.is_exporting():
        # a slice would freeze whether its result is contiguous, i.e. whether the image was padded
        rows, columns = (torch.arange(n, device=cells.device) for n in (height, width))
        return cells.index_select(2, rows).index_select(3, columns)
    return cells[..., :height, :width]


class Head(nn.Module):
    """Fuse and predict, in either order (MMM 2017 slides). On maps of one cell: an image head.

    EFLP (early fusion, late prediction): predict(fuse(F_1 ... F_S)).
    EPLF (early prediction, late fusion): fuse(predict_1(F_1) ... predict_S(F_S)).

    Args:
        branches: S.
        width: K.
        classes: C.
        order: "eflp" or "eplf".
        fusion, grid, start, norm: see `cfnseg.models.fusion.base.Fusion`. In EPLF the fusion's
            channels are the classes, it has no ReLU, and its bias is a class prior by place.
        refine: `Refine` blocks after the fusion, in EFLP: in EPLF the fused scores are the result.
        dropout: probability that a predictor drops a channel.
        std: the predictors' weights start N(0, std).
    """

    def __init__(
        self,
        branches: int,
        width: int,
        classes: int,
        order: str = "eflp",
        *,
        fusion: str = "lc",
        grid: tuple[int, int] = (1, 1),
        start: str = "sum",
        norm: str = "none",
        refine: int = 0,
        dropout: float = 0.1,
        std: float = 0.05,
    ) -> None:
        super().__init__()
        if order not in ORDERS:
            raise unknown("model.order", order, ORDERS)
        self.early_fusion = order == "eflp"
        count, channels = (1, width) if self.early_fusion else (branches, classes)
        self.predictors = nn.ModuleList(
            predictor(width, classes, dropout, std) for _ in range(count)
        )
        self.fusion = build_fusion(
            fusion,
            branches=branches,
            width=channels,
            grid=grid,
            start=start,
            norm=norm,
            relu=self.early_fusion,
        )
        self.refine = nn.Sequential(*(Refine(channels) for _ in range(refine * self.early_fusion)))

    def fuse(self, maps: Sequence[Tensor], region: Tensor | None = None) -> Tensor:
        """(N, K, h, w), in EPLF (N, C, h, w), of S maps; see `forward`."""
        return self.refine(self.fusion(maps, region))

    def predict(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Logits (N, C, h, w) of each map (N, K, h, w): one in EFLP, S in EPLF."""
        return [predict(x) for predict, x in zip(self.predictors, maps, strict=True)]

    def forward(
        self, branches: Sequence[Tensor], region: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Fuse and predict in the head's order.

        Args:
            branches: S maps (N, K, h_s, w_s), the finest first.
            region: (N, 4) place of the finest map in the full image, or None.

        Returns:
            Logits (N, C, h, w) at the finest map's size, and the logits of each branch
            (N, C, h_s, w_s), none in EFLP.
        """
        if self.early_fusion:
            return self.predict([self.fuse(branches, region)])[0], []
        scores = self.predict(branches)
        return self.fuse(scores, region), scores


def predictor(width: int, classes: int, dropout: float, std: float = 0.05) -> nn.Sequential:
    """Dropout of channels, then a 1x1 convolution; on one cell, the usual dropout and FC layer."""
    conv = nn.Conv2d(width, classes, 1)
    nn.init.normal_(conv.weight, std=std)
    nn.init.zeros_(conv.bias)
    return nn.Sequential(nn.Dropout2d(dropout), conv)
