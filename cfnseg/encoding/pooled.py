"""The plain features that the encoders are compared with: a stage's mean, and a feature that a net has fused itself."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from cfnseg.encoding.local import check_descriptors, unit


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
