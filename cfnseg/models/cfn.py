"""The Convolutional Fusion Network: receive, send, fuse, predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cfnseg.data.bands import Bands
from cfnseg.errors import UserError
from cfnseg.models.encoder import Encoder, rounded
from cfnseg.models.hub_file import PREFIX, is_hub_name
from cfnseg.models.parts import Head, SideBranch, cropped, send
from cfnseg.models.segmenter import Network, Output


class CFN(Network):
    """Pixel-level CFN, and an image head on the same side branches.

    Shapes for strides (2, 4, 8, 16, 32), where H', W' are H, W rounded up to a multiple of 32:

    ========  ===============================  ===================================
    step      pixel head                       image head
    ========  ===============================  ===================================
    encoder   P_s (N, C_s, H'/s, W'/s)         the same
    receive   F_s (N, K, H'/s, W'/s); F_2: /4  the same
    send      U_s (N, K, H'/4, W'/4) bilinear  g_s (N, K, 1, 1) mean over the image
    context   g (N, K, 1, 1), broadcast        -
    fuse      (N, K, H'/4, W'/4)               (N, K, 1, 1)
    predict   (N, C, ceil(H/4), ceil(W/4))     (N, C)
    ========  ===============================  ===================================

    The pixel fusion upsamples by itself, so no U_s is stored. In EPLF, predict comes before fuse,
    and C replaces K in the fusion. With ``receive="relu"``, ``context=False``, ``refine=0`` and
    ``fusion_norm="none"`` this is the first edition's head.

    Args:
        encoder: timm backbone name.
        num_classes: C.
        encoder_weights: see `cfnseg.models.pretrained.load_encoder_weights`.
        strides: encoder stages with a side branch; (32,) is the plain net. A stage at stride 2 is
            left out where the encoder has none.
        width: K, channels of every branch.
        receive: "linear": F_s = conv BN(P_s), and a stage finer than stride 4 is averaged to it.
            "relu": F_s = ReLU(BN(conv P_s)), at every stage's own stride.
        context: one more branch of the pixel head: the deepest stage, sent by global average
            pooling (the slides' own "send") and broadcast.
        refine: depthwise-separable residual blocks after the pixel fusion.
        order: "eflp" fuses features and predicts once, "eplf" predicts from each branch and fuses
            scores.
        fusion: a name in `cfnseg.models.fusion.FUSIONS`.
        grid: (gh, gw) locally-connected weights over the full image.
        start: fusion weights start at 1 ("sum") or 1/S ("mean").
        fusion_norm: batch norm of the fused pixel map: "none", "channel" or "single".
        dropout: probability, before the predictors of either head.
        side_losses: return each branch's logits in training, for a loss on each (HED; EPLF only).
        test_scale: factor on image sides at validation and inference.
        bands: of images that are no 8-bit RGB; see `cfnseg.models.encoder.Encoder`.

    Raises:
        UserError: an unknown name (with the nearest), a stride that the encoder lacks, or unusable
            weights.

    Example:
        >>> import torch
        >>> from cfnseg import CFN
        >>> net = CFN("mobilenetv3_small_050", num_classes=5, width=16).eval()
        >>> images = torch.randint(0, 256, (2, 3, 97, 131), dtype=torch.uint8)
        >>> with torch.inference_mode():
        ...     output = net(images)
        >>> tuple(output.pixel.shape), tuple(output.image.shape)
        ((2, 5, 25, 33), (2, 5))

    Source: MMM 2017 slides and the authors' configuration for the image head. The pixel head
    follows the abstract of Liu, Guo, Lew 2018, "fully convolutional fusion network"; the grid of
    weights is our construction.
    """

    def __init__(
        self,
        encoder: str,
        num_classes: int,
        *,
        encoder_weights: str | None = None,
        strides: tuple[int, ...] = (2, 4, 8, 16, 32),
        width: int = 128,
        receive: str = "linear",
        context: bool = True,
        order: str = "eflp",
        fusion: str = "lc",
        grid: tuple[int, int] = (6, 8),
        start: str = "sum",
        fusion_norm: str = "channel",
        refine: int = 1,
        dropout: float = 0.0,
        side_losses: bool = False,
        test_scale: float = 1.0,
        bands: Bands | None = None,
    ) -> None:
        super().__init__(test_scale)
        self.encoder = Encoder(encoder, strides, encoder_weights, bands=bands)
        self.branches, self.strides = side_branches(self.encoder, width, receive == "linear")
        deepest = self.encoder.channels[-1]
        self.context = SideBranch(deepest, width, linear=True) if context else None
        count, shape = len(self.branches), (width, num_classes, order)
        settings: dict[str, Any] = {"fusion": fusion, "start": start, "dropout": dropout}
        own = settings | {"grid": grid, "norm": fusion_norm, "refine": refine}
        self.pixel = Head(count + context, *shape, **own)
        self.image = Head(count, *shape, **settings)
        self.side_losses = side_losses

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        """Predict.

        Args:
            images: (N, 3, H, W) RGB, uint8 in 0..255 or float in 0..1, or (N, C, H, W) of
                ``bands`` as stored; any H, W >= 32. A program of `torch.export` with dynamic N, H,
                W takes H, W >= 33, because the exporter treats a map of one cell as a constant.
            region: (N, 4) float x0, y0, x1, y1: place of each image in its full image, 1 = full
                width or height. It may leave [0, 1] where a crop is padded. None = a whole image.

        Returns:
            Class logits per cell and per image.
        """
        size, strides = images.shape[-2:], self.strides
        region = padded_region(region, size, images, self.encoder.padding)
        early, stages = self.pixel.early_fusion, self.encoder(images)
        maps = self.receive(stages, size)
        cells = self.sent(stages, maps, size)  # to the image head; the pixel fusion upsamples
        if not early:  # EPLF
            maps, cells = self.pixel.predict(maps), self.image.predict(cells)
        pixel, image = self.pixel.fuse(maps, region), self.image.fuse(cells)
        if early:  # EFLP
            (pixel,), (image,) = self.pixel.predict([pixel]), self.image.predict([image])
        kept = maps if self.side_losses and self.training and not early else ()
        side = tuple(cropped(x, s, size) for x, s in zip(kept, strides))
        return Output(cropped(pixel, strides[0], size), image.flatten(1), side)

    @staticmethod
    def from_pretrained(name: str | Path) -> CFN:
        """The CFN of a repository of the Hugging Face Hub, in eval mode, on the CPU.

        `cfnseg.load` gives its classes and its score as well.

        Args:
            name: "user/name", "user/name@revision", or whatever `cfnseg.load` takes.

        Raises:
            UserError: as `cfnseg.load`, and for weights of another model.
        """
        from cfnseg.models.weights import load  # which imports this module

        here = is_hub_name(name) or Path(name).exists() or str(name).endswith(".safetensors")
        weights = load(name if here else f"{PREFIX}{name}")
        kind = weights.settings.name, weights.settings.level
        if kind != ("cfn", "pixel"):
            what = "model.name {}, model.level {}".format(*kind)
            raise UserError(f"{name} is no pixel-level CFN ({what}); cfnseg.load takes it", code=2)
        return cast(CFN, weights.model)

    def receive(self, stages: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """The pixel head's branches (N, K, h_s, w_s) of images of ``size`` (H, W), the context
        (N, K, 1, 1) last."""
        maps = [receive(stage) for receive, stage in zip(self.branches, stages)]
        if self.context is not None:
            maps.append(send(self.context(stages[-1]), self.encoder.strides[-1], size))
        return maps

    def sent(self, stages: list[Tensor], maps: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """The branches of the image head (N, K, 1, 1), from those of the pixel head."""
        return [send(x, s, size) for x, s in zip(maps, self.strides)]

    @property
    def branch_names(self) -> list[str]:
        """Names of `receive`'s branches: "stride 2", ..., "context"."""
        return [f"stride {s}" for s in self.encoder.strides] + ["context"] * bool(self.context)


def side_branches(
    encoder: Encoder, width: int, linear: bool
) -> tuple[nn.ModuleList, tuple[int, ...]]:
    """A side branch for each stage of ``encoder``, and the strides of their maps.

    Linear branches average a stage finer than stride 4 to the finest other stride.
    """
    finest = min((s for s in encoder.strides if s >= 4), default=1) if linear else 1
    strides = tuple(max(s, finest) for s in encoder.strides)
    pools = [whole // own for whole, own in zip(strides, encoder.strides)]
    pairs = zip(encoder.channels, pools)
    branches = (SideBranch(c, width, linear=linear, pool=pool) for c, pool in pairs)
    return nn.ModuleList(branches), strides


def padded_region(
    region: Tensor | None, size: Sequence[int], images: Tensor, padding: int = 32
) -> Tensor:
    """The place (N, 4) of the padded image, whose sides are rounded up to ``padding``.

    Args:
        region: (N, 4) place of the image of ``size`` (H, W); None = the whole image.
        size: (H, W).
        images: a tensor on the device.
        padding: see `Encoder`.
    """
    if region is None:
        region = torch.zeros(1, 4, device=images.device)
        region[:, 2:] = 1
    x0, y0, x1, y1 = region.unbind(1)
    down, across = (rounded(n, padding) / n for n in size)  # an exporter would freeze a branch here
    return torch.stack([x0, y0, x0 + (x1 - x0) * across, y0 + (y1 - y0) * down], 1)
