"""From settings to a network."""

from __future__ import annotations

from torch import nn

from cfnseg.config import Model
from cfnseg.models.cfn import CFN


def build_model(settings: Model, classes: int, pretrained: bool = True) -> nn.Module:
    """The network that ``settings`` describe.

    Args:
        settings: the model section of a config.
        classes: C.
        pretrained: load ``settings.encoder_weights``; False where the weights come from a file of ours anyway.

    Raises:
        UserError: an unknown name, a stride that the encoder lacks, weights that cannot be had.
    """
    model = CFN(settings.encoder, classes, encoder_weights=settings.encoder_weights if pretrained else None,
               strides=tuple(settings.strides), width=settings.width, fusion=settings.fusion, grid=tuple(settings.grid),
               start=settings.start, fusion_norm=settings.fusion_norm, dropout=settings.dropout)
    model.test_scale = settings.test_scale  # read by cfnseg.engine.predict; no part of the forward pass
    return model
