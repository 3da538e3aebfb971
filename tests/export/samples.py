"""A net that is sure of what it says, and images."""

from pathlib import Path

import numpy as np
import torch

from cfnseg.config import Model
from cfnseg.data.formats.shapes import ShapesDataset
from cfnseg.models.build import build_model
from cfnseg.models.weights import Weights, load, save_weights
from tests.conftest import ENCODER

LABELS = ShapesDataset("val").labels


def trained(path: Path, **settings) -> Weights:
    """A weights file of a net in whose head nothing is at its start."""
    torch.manual_seed(0)
    model = Model(encoder=ENCODER, encoder_weights=None, width=8, **{"grid": (2, 3)} | settings)
    net = build_model(model, len(LABELS)).eval()
    for name, parameter in net.named_parameters():
        if "predictors" in name or "delta" in name:
            torch.nn.init.normal_(parameter)
    save_weights(path, net, model, LABELS, {"data": "shapes", "split": "val", "miou": 0.1})
    return load(path)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
