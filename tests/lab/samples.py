"""Made descriptors for the tests of the encoders."""

import numpy as np

from cfnseg.lab.local_codes import VLAD, BagOfWords, FisherVector
from cfnseg.lab.pooled_codes import AveragePooling, CrossLayerPooling, FusedFeature

CHANNELS, NEXT = 10, 4
LOCAL = {
    "bow": BagOfWords(words=12, dimensions=6),
    "vlad": VLAD(centres=5, dimensions=6),
    "fisher": FisherVector(components=3, dimensions=6),
}
ENCODERS = {
    **LOCAL,
    "cross": CrossLayerPooling(dimensions=6),
    "average": AveragePooling(),
    "fused": FusedFeature(),
}
LENGTHS = {
    "bow": 12,
    "vlad": 5 * 6,
    "fisher": 2 * 3 * 6,
    "cross": NEXT * 6,
    "average": CHANNELS,
    "fused": CHANNELS,
}


def scenes(
    count: int, seed: int, classes: int = 3, places: int = 20
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A class decides how often each of six kinds of descriptor occurs, and shifts each kind.

    Shifts are needed: VLAD's intra-normalisation removes counts.

    Returns:
        descriptors (count, places, CHANNELS) float32, indicators (count, places, NEXT) float32,
        labels (count,).
    """
    fixed, rng = np.random.default_rng(99), np.random.default_rng(seed)
    kinds = fixed.normal(size=(6, CHANNELS)) * 2
    odds = fixed.dirichlet(np.full(6, 0.7), classes)
    shifts = fixed.normal(size=(classes, 6, CHANNELS)) * 0.7
    read = fixed.normal(size=(CHANNELS, NEXT))
    labels = rng.integers(0, classes, count)
    which = np.array([rng.choice(6, places, p=odds[y]) for y in labels])
    x = (
        kinds[which] + shifts[labels[:, None], which] + rng.normal(size=(count, places, CHANNELS))
    ).astype(np.float32)
    return x, (x @ read).astype(np.float32), labels


def inputs(name: str, x: np.ndarray, indicators: np.ndarray):
    """What the encoder called ``name`` takes."""
    if name == "cross":
        return x, indicators
    return x.mean(1) if name == "fused" else x
