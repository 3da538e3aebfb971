"""The encoders over one stage of a trained image-level net, against its own fused feature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cfnseg.config import Data
from cfnseg.data.formats.class_folders import ImageSet, hold_out_images, open_images
from cfnseg.data.transforms import ImageTransform
from cfnseg.encoding.bow import BagOfWords
from cfnseg.encoding.compare import Row, compare_encoders
from cfnseg.encoding.crosslayer import CrossLayerPooling
from cfnseg.encoding.descriptors import stage_pair
from cfnseg.encoding.fisher import FisherVector
from cfnseg.encoding.pooled import AveragePooling, FusedFeature
from cfnseg.encoding.vlad import VLAD
from cfnseg.errors import UserError
from cfnseg.models.weights import load

BATCH = 100


def compare_on_weights(weights: Path, root: str, train_images: int, test_images: int, stage: int = 1, dimensions: int = 64,
                       seed: int = 0) -> list[Row]:
    """Compare codes of the net's images: pooled, BoW, VLAD, Fisher vector, cross-layer, and the fused CFN feature.

    Args:
        weights: of an image-level CFN in EFLP order.
        root: the data set that it was trained on; its training split is used.
        train_images: images that encoders and SVM are fitted to, the same number of every class.
        test_images: others, of those that the net's training held out, that are scored.
        stage: index of the encoder's stage whose places are the local descriptors; cross-layer pooling takes the next as well.
        dimensions: of local descriptors after PCA.
        seed: of k-means, mixtures and SVM.

    Raises:
        UserError: weights that have no fused feature or other classes, or too few images.
    """
    loaded = load(weights)
    net = loaded.model
    if loaded.settings.level != "image" or loaded.settings.name != "cfn" or loaded.settings.order != "eflp":
        raise UserError(f"{weights}: expected an image-level CFN with early fusion, which has a fused feature", code=2)
    if not 0 <= stage < len(net.encoder.channels) - 1:
        raise UserError(f"--stage {stage}: the net has stages 0 to {len(net.encoder.channels) - 1}, and one must follow", code=2)
    if int(loaded.score.get("held_out", 0)) < test_images:
        raise UserError(f"{weights}: its training held out {loaded.score.get('held_out', 0)} images, fewer than --test-images "
                        f"{test_images}; a net cannot be scored on what it was trained on", code=2)
    whole = open_images(str(loaded.score["data"]), root, "train", classes=loaded.labels.names)
    rest, held = hold_out_images(whole, str(loaded.score["held_out"]))  # as the training did
    held = hold_out_images(held, str(test_images))[1] if test_images < len(held.names) else held
    chosen = hold_out_images(rest, str(train_images))[1]
    settings = Data(crop=tuple(loaded.score.get("crop", (224, 224))))
    splits = [(_pixels(part, settings), part.targets) for part in (chosen, held)]
    inputs = [_inputs(net, images, stage) for images, _ in splits]
    own = {"dimensions": dimensions, "seed": seed}
    encoders = {"average pooling": AveragePooling(), "bag of words": BagOfWords(256, **own), "VLAD": VLAD(64, **own),
                "Fisher vector": FisherVector(32, **own), "cross-layer pooling": CrossLayerPooling(dimensions=32, seed=seed),
                "fused CFN feature": FusedFeature()}
    train, test = (({name: made["pair" if "cross" in name else "fused" if "fused" in name else "stage"] for name in encoders}, labels)
                   for made, (_, labels) in zip(inputs, splits))
    return compare_encoders(encoders, train, test, seed=seed)


def _pixels(images: ImageSet, settings: Data) -> np.ndarray:
    """(N, H, W, 3) uint8 at the size that the net was trained with."""
    transform = ImageTransform(settings, train=False)
    return np.stack([transform(images.image(i), images.targets[i], name).image.transpose(1, 2, 0) for i, name in enumerate(images.names)])


def _inputs(net: torch.nn.Module, images: np.ndarray, stage: int) -> dict[str, object]:
    fused = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            fused.append(net.fused(torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2)).numpy())
    pair = stage_pair(net.encoder, images, stage, BATCH)
    return {"stage": pair[0], "pair": pair, "fused": np.concatenate(fused)}
