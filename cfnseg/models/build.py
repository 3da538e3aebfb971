"""From settings to a network."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import nn

from cfnseg.config import Model
from cfnseg.errors import unknown
from cfnseg.models.cfn import CFN
from cfnseg.models.image_cfn import ImageCFN
from cfnseg.models.peers import PEERS, Peer
from cfnseg.models.rivals import RIVALS

MODELS: dict[str, Callable[..., nn.Module]] = {"cfn": CFN, **RIVALS, **{name: functools.partial(Peer, name) for name in PEERS}}
IMAGE_MODELS: dict[str, Callable[..., nn.Module]] = {
    "cfn": ImageCFN,
    "plain": functools.partial(ImageCFN, main_only=True),
    "dag_cnn": lambda *args, **settings: ImageCFN(*args, **settings | {"order": "eplf", "fusion": "sum"}),
    "dsn": functools.partial(ImageCFN, main_only=True, companions=True),
}


def build_model(settings: Model, classes: int, pretrained: bool = True) -> nn.Module:
    """The network that ``settings`` describe.

    Args:
        settings: the model section of a config.
        classes: C.
        pretrained: load ``settings.encoder_weights``; False where the weights come from a file of ours anyway.

    Raises:
        UserError: an unknown name (with the nearest), a stride that the encoder lacks, weights that cannot be had.
    """
    models = IMAGE_MODELS if settings.level == "image" else MODELS
    if settings.name not in models:
        raise unknown("model.name", settings.name, models)
    own = {"kernel": settings.kernel}
    if settings.level == "pixel":
        own = {"grid": tuple(settings.grid), "test_scale": settings.test_scale}
    return models[settings.name](
        settings.encoder, classes, encoder_weights=settings.encoder_weights if pretrained else None,
        strides=tuple(settings.strides), width=settings.width, order=settings.order, fusion=settings.fusion,
        start=settings.start, fusion_norm=settings.fusion_norm, dropout=settings.dropout, **own)
