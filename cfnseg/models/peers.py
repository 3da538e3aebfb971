"""Other people's decoders behind the contract of `CFN`: same encoder, weights and normalisation, any size, logits at their stride.

The decoders are those of segmentation-models-pytorch and torchvision as they publish them; the trunk is our `Encoder`.
"""

from __future__ import annotations

import segmentation_models_pytorch as smp
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.models.segmentation.lraspp import LRASPPHead

from cfnseg.errors import UserError, first_line
from cfnseg.models.backbone import fit
from cfnseg.models.branch import cropped, send_image
from cfnseg.models.encoder import Encoder
from cfnseg.models.head import predictor
from cfnseg.models.segmenter import Network, Output

SMP = {"unet": 32, "fpn": 32, "deeplabv3plus": 16, "upernet": 32, "segformer": 32}  # the stride to which the encoder goes
TORCHVISION = {"fcn_tv": 8, "deeplabv3": 8, "lraspp": 16}
PEERS = (*SMP, *TORCHVISION)


class Peer(Network):
    """A published decoder on our trunk, with a linear image head on the encoder's last stage.

    Args:
        name: one of PEERS.
        encoder: timm backbone name.
        num_classes: C.
        encoder_weights: see `cfnseg.models.encoder.load_encoder_weights`.
        dropout: before the image head; the decoders keep their own.
    """

    def __init__(self, name: str, encoder: str, num_classes: int, *, encoder_weights: str | None = None, dropout: float = 0.1,
                 test_scale: float = 1.0, **_: object) -> None:
        super().__init__(test_scale)
        stride = (SMP | TORCHVISION)[name]
        reductions = fit(encoder).reductions
        strides = tuple(s for s in (2, 4, 8, 16, 32) if s in reductions)
        if not {4, 8, 16, 32} <= set(strides):
            raise UserError(f"model.name {name}: its decoder reads stages at strides 4 8 16 32, and {encoder} has {list(reductions)}; "
                            "choose another encoder, or model.name cfn", code=2)
        self.encoder = Encoder(encoder, strides, encoder_weights, stride)
        self.decoder = SmpDecoder(name, encoder, num_classes) if name in SMP else TorchvisionDecoder(name, self.encoder, num_classes)
        self.image = predictor(self.encoder.channels[-1], num_classes, dropout, 0.01)

    def forward(self, images: Tensor, region: Tensor | None = None) -> Output:
        """See `CFN.forward`; ``region`` does not matter."""
        size = images.shape[-2:]
        stages = self.encoder(images)
        pixel = self.decoder(stages)
        stride = -(-size[0] // 32) * 32 // pixel.shape[-2]
        image = self.image(send_image(stages[-1], self.encoder.strides[-1], size)).flatten(1)
        return Output(cropped(pixel, stride, size), image)



class SmpDecoder(nn.Module):
    """Decoder and segmentation head of a segmentation-models-pytorch architecture, without its last upsampling."""

    def __init__(self, name: str, encoder: str, num_classes: int) -> None:
        super().__init__()
        try:
            whole = smp.create_model(name, f"tu-{encoder}", encoder_weights=None, classes=num_classes)
        except Exception as error:  # SMP refuses some of timm's backbones in ways of its own
            raise UserError(f"model.name {name}: its decoder does not take the encoder {encoder} ({first_line(error)})", code=2) from None
        self.body, self.head = whole.decoder, whole.segmentation_head[0]

    def forward(self, stages: list[Tensor]) -> Tensor:
        """(N, C, h, w) logits of stages from stride 2 or 4 on."""
        n, _, h, w = stages[0].shape
        full = 2 if len(stages) == 5 else 4
        features = [stages[0].new_empty(n, 0, h * full, w * full)]  # of the image SMP's decoders read the size only
        if full == 4:  # such backbones have no stage at stride 2, for which SMP, too, gives an empty one
            features.append(stages[0].new_empty(n, 0, h * 2, w * 2))
        return self.head(self.body([*features, *stages]))


class TorchvisionDecoder(nn.Module):
    """The head of a torchvision segmentation model, before its upsampling."""

    def __init__(self, name: str, encoder: Encoder, num_classes: int) -> None:
        super().__init__()
        high = encoder.channels[-1]
        self.low = next(i for i, s in enumerate(encoder.strides) if s == 8) if name == "lraspp" else None
        if name == "lraspp":
            self.head = LRASPPHead(encoder.channels[self.low], high, num_classes, 128)
        else:
            self.head = (FCNHead if name == "fcn_tv" else DeepLabHead)(high, num_classes)

    def forward(self, stages: list[Tensor]) -> Tensor:
        """(N, C, h, w) logits."""
        return self.head(stages[-1] if self.low is None else {"low": stages[self.low], "high": stages[-1]})
