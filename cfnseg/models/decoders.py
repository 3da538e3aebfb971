"""Decoders of segmentation-models-pytorch and torchvision, as published, on CFN's encoder."""

from __future__ import annotations

import segmentation_models_pytorch as smp
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.models.segmentation.lraspp import LRASPPHead

from cfnseg.data.bands import Bands
from cfnseg.errors import UserError, first_line
from cfnseg.models.backbone import fit
from cfnseg.models.encoder import Encoder
from cfnseg.models.parts import cropped, predictor, send
from cfnseg.models.segmenter import Network, Output

# name -> output stride of the encoder
SMP = {"unet": 32, "fpn": 32, "deeplabv3plus": 16, "upernet": 32, "segformer": 32}
TORCHVISION = {"fcn_tv": 8, "deeplabv3": 8, "lraspp": 16}
DECODERS = (*SMP, *TORCHVISION)


class Decoder(Network):
    """A published decoder, and a linear image head on the encoder's last stage.

    Args:
        name: one of DECODERS.
        encoder: timm backbone name.
        num_classes: C.
        encoder_weights: see `cfnseg.models.pretrained.load_encoder_weights`.
        dropout: before the image head; the decoders keep their own.
        test_scale: see `cfnseg.models.segmenter.Segmenter`.
        bands: of images that are no 8-bit RGB; see `cfnseg.models.encoder.Encoder`.

    Raises:
        UserError: the encoder lacks a stage that the decoder reads, or the decoder refuses it.
    """

    def __init__(
        self,
        name: str,
        encoder: str,
        num_classes: int,
        *,
        encoder_weights: str | None = None,
        dropout: float = 0.1,
        test_scale: float = 1.0,
        bands: Bands | None = None,
        **_: object,
    ) -> None:
        super().__init__(test_scale)
        reductions = fit(encoder).reductions
        strides = tuple(s for s in (2, 4, 8, 16, 32) if s in reductions)
        if not {4, 8, 16, 32} <= set(strides):
            raise UserError(
                f"model.name {name}: its decoder reads stages at strides 4 8 16 32, and {encoder} "
                f"has {list(reductions)}; choose another encoder, or model.name cfn",
                code=2,
            )
        stride = (SMP | TORCHVISION)[name]
        self.encoder = Encoder(encoder, strides, encoder_weights, stride, bands)
        self.decoder = (
            SmpDecoder(name, encoder, num_classes)
            if name in SMP
            else TorchvisionDecoder(name, self.encoder, num_classes)
        )
        self.image = predictor(self.encoder.channels[-1], num_classes, dropout)

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        """See `cfnseg.models.cfn.CFN.forward`; ``region`` is ignored."""
        size = images.shape[-2:]
        stages = self.encoder(images)
        pixel = self.decoder(stages)
        stride = -(-size[0] // 32) * 32 // pixel.shape[-2]
        image = self.image(send(stages[-1], self.encoder.strides[-1], size)).flatten(1)
        return Output(cropped(pixel, stride, size), image)


class SmpDecoder(nn.Module):
    """Decoder and segmentation head of an SMP architecture, without its last upsampling."""

    def __init__(self, name: str, encoder: str, num_classes: int) -> None:
        super().__init__()
        try:
            whole = smp.create_model(
                name, f"tu-{encoder}", encoder_weights=None, classes=num_classes
            )
        except Exception as error:  # SMP refuses some of timm's backbones, each in another way
            reason = f"its decoder does not take the encoder {encoder} ({first_line(error)})"
            raise UserError(f"model.name {name}: {reason}", code=2) from None
        self.body, self.head = whole.decoder, whole.segmentation_head[0]

    def forward(self, stages: list[Tensor]) -> Tensor:
        """(N, C, h, w) logits of stages from stride 2 or 4 on."""
        n, _, h, w = stages[0].shape
        # SMP's decoders read only the size of the image, and of a missing stage at stride 2
        factors = (2,) if len(stages) == 5 else (4, 2)
        empty = [stages[0].new_empty(n, 0, h * f, w * f) for f in factors]
        return self.head(self.body([*empty, *stages]))


class TorchvisionDecoder(nn.Module):
    """The head of a torchvision segmentation model, before its upsampling."""

    def __init__(self, name: str, encoder: Encoder, num_classes: int) -> None:
        super().__init__()
        high = encoder.channels[-1]
        self.low = encoder.strides.index(8) if name == "lraspp" else None
        if self.low is not None:
            self.head = LRASPPHead(encoder.channels[self.low], high, num_classes, 128)
        else:
            self.head = (FCNHead if name == "fcn_tv" else DeepLabHead)(high, num_classes)

    def forward(self, stages: list[Tensor]) -> Tensor:
        """(N, C, h, w) logits."""
        if self.low is None:
            return self.head(stages[-1])
        return self.head({"low": stages[self.low], "high": stages[-1]})
