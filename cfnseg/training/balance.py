"""What is counted of the training masks: class weights, and the images that have a class."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from cfnseg.config import Config
from cfnseg.data.dataset import Dataset, fingerprint
from cfnseg.data.loader import class_counts, class_frequency, median_frequency_weights
from cfnseg.storage import write_atomic
from cfnseg.training.hosts import from_main


class Balance(NamedTuple):
    """How a run makes up for rare classes.

    Attributes:
        weights: (C,) float32 class weights on the device, or None.
        images: the indices of the images with a class, by class; empty if no sample is drawn so.
    """

    weights: Tensor | None
    images: list[np.ndarray]


def balance(
    config: Config, data: Dataset, fabric: Fabric, folder: Path, say: Callable[[str], None]
) -> Balance:
    """The `Balance` of a segmentation's training data.

    Rank 0 counts the masks once and keeps ``<folder>/class_frequency.json``; it counts again if a
    mask file has changed.
    """
    weighs, draws = config.loss.class_weights != "none", config.data.rare > 0
    if not (weighs or draws) or config.model.level == "image":
        return Balance(None, [])
    path = folder / "class_frequency.json"

    def count() -> tuple[list[float], list[list[int]]]:
        known = fingerprint(data)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(path.read_text())
            images = kept["images"] if draws else []
            same = kept["fingerprint"] == known and len(kept["frequency"]) == len(data.labels)
            if same and bool(images) == draws:
                return [float(value) for value in kept["frequency"]], images
        say("counting the training masks' classes")
        counts = class_counts(data, config.data.workers)
        frequency = class_frequency(counts).tolist()
        images = [np.flatnonzero(own).tolist() for own in counts.T] if draws else []
        found = {
            "fingerprint": known,
            "classes": data.labels.names,
            "frequency": frequency,
            "images": images,
        }
        write_atomic(path, lambda temporary: temporary.write_text(json.dumps(found)))
        return frequency, images

    frequency, images = from_main(fabric, count)
    weights = median_frequency_weights(np.array(frequency), config.loss.class_weight_power)
    tensor = torch.tensor(weights, dtype=torch.float32, device=fabric.device)
    return Balance(tensor if weighs else None, [np.array(own, int) for own in images])
