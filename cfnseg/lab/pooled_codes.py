"""Codes by pooling: a stage's mean, cross-layer pooling, a net's own fused feature."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from cfnseg.lab.local_codes import BLOCK, check_descriptors, fit_pca, sampled, signed_root, unit


class AveragePooling(TransformerMixin, BaseEstimator):
    """Global average pooling of a stage, scaled to L2 norm 1. It learns nothing but the number of channels."""

    def fit(self, X: np.ndarray, y: object = None) -> AveragePooling:
        """Note the channels of ``X``, (images, places, channels) float; ``y`` is not used. ValueError: another shape."""
        self.n_features_in_ = check_descriptors(X).shape[2]
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """(images, channels) float32 of L2 norm 1. NotFittedError before `fit`; ValueError for another shape or channels."""
        check_is_fitted(self)
        X = check_descriptors(X, channels=self.n_features_in_)
        return unit(_finite(X.mean(1, dtype=np.float64))).astype(np.float32)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags


class FusedFeature(TransformerMixin, BaseEstimator):
    """A feature that is one vector an image already, such as a CFN's fused one, scaled to L2 norm 1."""

    def fit(self, X: np.ndarray, y: object = None) -> FusedFeature:
        """Note the width of ``X``, (images, features) float; ``y`` is not used. ValueError: another shape."""
        self.n_features_in_ = _check_features(X).shape[1]
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """(images, features) float32 of L2 norm 1. NotFittedError before `fit`; ValueError for another shape or width."""
        check_is_fitted(self)
        X = _check_features(X)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"X: expected {self.n_features_in_} features as in fit, got {X.shape[1]}")
        return unit(_finite(X.astype(np.float64))).astype(np.float32)


def _check_features(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 2 or not x.shape[1] or x.dtype.kind != "f":
        raise ValueError(f"X: expected a float array (images, features), got {x.dtype} {x.shape}")
    return x


def _finite(x: np.ndarray) -> np.ndarray:
    if not np.isfinite(x).all():
        raise ValueError("X: not finite")
    return x


Pair = tuple[np.ndarray, np.ndarray]


class CrossLayerPooling(TransformerMixin, BaseEstimator):
    """P_k = sum_i x_i a_ik over the places i, one for each channel k of the next stage (Liu, Shen & van den Hengel 2015).

    x are a stage's descriptors after PCA, a the activations of the next stage at the same places. The paper's layers end in a
    ReLU, so negative activations count as 0 here too: many backbones' stages end before theirs. Signed root and L2 norm 1 follow.

    X is a pair (descriptors, indicators) of float arrays (images, places, channels) over the same images and places;
    `descriptors.stage_pair` makes one.

    Args:
        dimensions: PCA of the descriptors to so many, or to as many as there are; None = no PCA. It alone bounds the code,
            which has (channels of the next stage) x dimensions entries.
        sample: the most descriptors to fit on.
        seed: of the sample and PCA.

    Attributes:
        pca_: the fitted PCA, or None.
        n_features_in_: channels of the descriptors.
        indicators_: channels of the indicators.
    """

    def __init__(self, dimensions: int | None = 64, sample: int = 50_000, seed: int = 0) -> None:
        self.dimensions = dimensions
        self.sample = sample
        self.seed = seed

    def fit(self, X: Pair, y: object = None) -> CrossLayerPooling:
        """Fit the PCA to a seeded sample of the descriptors; ``y`` is not used. ValueError: X is no such pair, or not finite."""
        descriptors, indicators = _checked(X)
        chosen = sampled(descriptors, self.sample, self.seed)
        if not np.isfinite(chosen).all():
            raise ValueError("X: descriptors not finite")
        self.pca_ = fit_pca(chosen, self.dimensions, self.seed)
        self.n_features_in_, self.indicators_ = descriptors.shape[2], indicators.shape[2]
        return self

    def transform(self, X: Pair) -> np.ndarray:
        """The codes of images.

        Returns:
            (images, indicators_ x dimensions) float32, channel by channel, of L2 norm 1; zeros where no indicator is positive.

        Raises:
            NotFittedError: before `fit`.
            ValueError: X is no such pair, has other channels than in `fit`, or is not finite.
        """
        check_is_fitted(self, "n_features_in_")
        descriptors, indicators = _checked(X, self.n_features_in_, self.indicators_)
        depth = self.n_features_in_ if self.pca_ is None else self.pca_.n_components_
        codes = np.empty((len(descriptors), self.indicators_ * depth), np.float32)
        step = max(1, BLOCK // descriptors.shape[1])
        for start in range(0, len(codes), step):
            x, a = (part[start: start + step].astype(np.float64) for part in (descriptors, indicators))
            if not (np.isfinite(x).all() and np.isfinite(a).all()):
                raise ValueError(f"X: not finite in the images {start} to {start + len(x) - 1}")
            if self.pca_ is not None:
                x = self.pca_.transform(x.reshape(-1, x.shape[2])).reshape(*x.shape[:2], -1)
            pooled = np.maximum(a, 0).swapaxes(1, 2) @ x
            codes[start: start + step] = unit(signed_root(pooled.reshape(len(x), -1)))
        return codes

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags


def _checked(X: Pair, channels: int | None = None, indicator_channels: int | None = None) -> Pair:
    if not isinstance(X, tuple | list) or len(X) != 2:
        raise ValueError(f"X: expected a pair (descriptors, indicators), got {type(X).__name__}")
    descriptors = check_descriptors(X[0], "X[0] (descriptors)", channels)
    indicators = check_descriptors(X[1], "X[1] (indicators)", indicator_channels)
    if descriptors.shape[:2] != indicators.shape[:2]:
        raise ValueError(f"X: expected the same images and places in both, got {descriptors.shape} and {indicators.shape}")
    return descriptors, indicators
