"""From settings to a model."""

from __future__ import annotations

import functools
from collections.abc import Callable

from cfnseg.config import Model
from cfnseg.data.bands import Bands
from cfnseg.errors import unknown
from cfnseg.models.baselines import BASELINES
from cfnseg.models.cfn import CFN
from cfnseg.models.decoders import DECODERS, Decoder
from cfnseg.models.image_cfn import ImageCFN
from cfnseg.models.segmenter import Network

MODELS: dict[str, Callable[..., Network]] = {
    "cfn": CFN,
    **BASELINES,
    **{name: functools.partial(Decoder, name) for name in DECODERS},
}
IMAGE_MODELS: dict[str, Callable[..., Network]] = {
    "cfn": ImageCFN,
    "plain": functools.partial(ImageCFN, main_only=True),
    "dag_cnn": lambda *args, **settings: ImageCFN(
        *args, **settings | {"order": "eplf", "fusion": "sum"}
    ),
    "dsn": functools.partial(ImageCFN, main_only=True, companions=True),
}


def build_model(
    settings: Model, classes: int, pretrained: bool = True, bands: Bands | None = None
) -> Network:
    """The model that ``settings`` describe.

    Args:
        settings: the model section of a config.
        classes: C.
        pretrained: load ``settings.encoder_weights``; False where a weights file follows.
        bands: of the images where they are no 8-bit RGB; segmentation.

    Raises:
        UserError: an unknown name (with the nearest), a stride that the encoder lacks, or
            pretrained weights that are not available.
    """
    pixel = settings.level == "pixel"
    models = MODELS if pixel else IMAGE_MODELS
    if settings.name not in models:
        raise unknown("model.name", settings.name, models)
    own = {
        "grid": tuple(settings.grid),
        "test_scale": settings.test_scale,
        "receive": settings.receive,
        "context": settings.context,
        "refine": settings.refine,
        "bands": bands,
    }
    return models[settings.name](
        settings.encoder,
        classes,
        encoder_weights=settings.encoder_weights if pretrained else None,
        strides=tuple(settings.strides),
        width=settings.width,
        order=settings.order,
        fusion=settings.fusion,
        start=settings.start,
        fusion_norm=settings.fusion_norm,
        dropout=settings.dropout,
        **(own if pixel else {"kernel": settings.kernel}),
    )
