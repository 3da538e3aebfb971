"""Pooled features of a stage: its mean, sums weighted by the next stage, and a fused feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cfnseg.lab.local_codes import LocalEncoder, check_descriptors, signed_root

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(eq=False, repr=False, kw_only=True)
class AveragePooling(LocalEncoder):
    """Global average pooling of a stage, without PCA by default."""

    dimensions: int | None = None

    def _fit_model(self, sample: np.ndarray) -> int:
        return sample.shape[1]

    def _encode(self, x: np.ndarray) -> np.ndarray:
        return x.mean(1)


class FusedFeature(AveragePooling):
    """A feature that is one vector per image already, such as the fused feature of a CFN.

    `fit` and `transform` take X of (images, features) float.
    """

    def _parts(self, X: np.ndarray, channels: int | None = None) -> tuple[np.ndarray, ...]:
        x = np.asarray(X)
        if x.ndim != 2 or not x.shape[1] or x.dtype.kind != "f":
            raise ValueError(
                f"X: expected a float array (images, features), got {x.dtype} {x.shape}"
            )
        return super()._parts(x[:, None], channels)


class CrossLayerPooling(LocalEncoder):
    """P_k = sum_i x_i a_ik over places i, for channel k of the next stage, then a signed root.

    x are a stage's descriptors after PCA, a the activations of the next stage at the same places
    (Liu, Shen & van den Hengel 2015). The paper's layers end in a ReLU; many backbones' stages end
    before it, so negative activations count as 0 here.

    X is a pair (descriptors, indicators) of float arrays (images, places, channels) over the same
    images and places, such as `cfnseg.lab.descriptors.stage_pair` makes.

    Args:
        dimensions, sample, seed: see `LocalEncoder`. The code has (channels of the next stage) x
            dimensions entries, channel by channel.

    Attributes:
        indicators_: channels of the indicators.
    """

    # X is a pair here, so the base class cannot stand for this one
    def fit(self, X: Pair, y: object = None) -> CrossLayerPooling:  # type: ignore[override]
        """As `LocalEncoder.fit`, of a pair."""
        self.indicators_ = self._parts(X)[1].shape[2]
        return super().fit(X)

    def _parts(  # type: ignore[override]  # as for `fit`
        self, X: Pair, channels: int | None = None
    ) -> Pair:
        if not isinstance(X, tuple | list) or len(X) != 2:
            raise ValueError(
                f"X: expected a pair (descriptors, indicators), got {type(X).__name__}"
            )
        descriptors = check_descriptors(X[0], "X[0] (descriptors)", channels)
        fitted = None if channels is None else self.indicators_
        indicators = check_descriptors(X[1], "X[1] (indicators)", fitted)
        if descriptors.shape[:2] != indicators.shape[:2]:
            shapes = f"{descriptors.shape} and {indicators.shape}"
            raise ValueError(f"X: expected the same images and places in both, got {shapes}")
        return descriptors, indicators

    def _fit_model(self, sample: np.ndarray) -> int:
        return self.indicators_ * sample.shape[1]

    def _encode(  # type: ignore[override]  # takes the pair of `_parts`
        self, x: np.ndarray, indicators: np.ndarray
    ) -> np.ndarray:
        pooled = np.maximum(indicators, 0).swapaxes(1, 2) @ x
        return signed_root(pooled.reshape(len(x), -1))
