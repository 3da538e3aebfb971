"""What the encoders over local descriptors share: checks, the training sample, PCA, work in blocks, normalisation."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

BLOCK = 8192  # descriptors encoded at once: bounds the memory of float64 copies and of posteriors
TINY = 1e-30


def unit(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """``x`` scaled to L2 norm 1 along ``axis``; a zero vector stays zero."""
    return x / np.maximum(np.linalg.norm(x, axis=axis, keepdims=True), TINY)


def signed_root(x: np.ndarray) -> np.ndarray:
    """sign(x) sqrt|x|: the power normalisation of Perronnin et al. 2010, against a few entries that outweigh the rest."""
    return np.sign(x) * np.sqrt(np.abs(x))


def check_descriptors(x: np.ndarray, name: str = "X", channels: int | None = None) -> np.ndarray:
    """``x`` if it is a float array (images, places, channels) with at least one place and channel; ValueError otherwise."""
    x = np.asarray(x)
    if x.ndim != 3 or 0 in x.shape[1:] or x.dtype.kind != "f":
        raise ValueError(f"{name}: expected a float array (images, places, channels), got {x.dtype} {x.shape}")
    if channels not in (None, x.shape[2]):
        raise ValueError(f"{name}: expected {channels} channels as in fit, got {x.shape[2]}")
    return x


def sampled(x: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most ``count`` of the local descriptors of ``x`` (images, places, channels), all if there are no more.

    Returns:
        (descriptors, channels) float64: EM and the sums of k-means lose too much in float32.
    """
    if count < 1:
        raise ValueError(f"sample: expected at least 1, got {count}")
    total = x.shape[0] * x.shape[1]
    if not total:
        raise ValueError("X: no images")
    if total <= count:
        return x.reshape(total, -1).astype(np.float64)
    # sorted, so that a memory-mapped X is read in one direction
    index = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    return x[index // x.shape[1], index % x.shape[1]].astype(np.float64)


def fit_pca(sample: np.ndarray, dimensions: int | None, seed: int) -> PCA | None:
    """PCA of a (descriptors, channels) sample to ``dimensions``, or to as many as the sample allows; None if that is None."""
    if dimensions is None:
        return None
    if dimensions < 1:
        raise ValueError(f"dimensions: expected at least 1, or None for no PCA, got {dimensions}")
    return PCA(min(dimensions, *sample.shape), random_state=seed).fit(sample)


def need(sample: np.ndarray, name: str, count: int) -> None:
    """ValueError unless 1 <= ``count`` <= the descriptors sampled."""
    if not 1 <= count <= len(sample):
        raise ValueError(f"{name}={count}: expected 1 to {len(sample)}, as many as there are descriptors to fit on")


class LocalEncoder(TransformerMixin, BaseEstimator, ABC):
    """Local descriptors -> PCA -> a code an image. A child fits its model on the sample and encodes a block of images.

    A child's constructor has the settings ``dimensions``, ``sample`` and ``seed``. The same seed gives the same code, up to the
    rounding of sums that several threads add in another order.

    Attributes:
        pca_: the fitted PCA, or None.
        n_features_in_: channels of the descriptors.
        size_: entries of the code.
    """

    dimensions: int | None
    sample: int
    seed: int

    def fit(self, X: np.ndarray, y: object = None) -> LocalEncoder:
        """Fit PCA and model to a seeded sample of the descriptors.

        Args:
            X: (images, places, channels) float.
            y: not used.

        Raises:
            ValueError: X has another shape or is not finite, or a setting does not go with it.
        """
        X = check_descriptors(X)
        chosen = sampled(X, self.sample, self.seed)
        if not np.isfinite(chosen).all():
            raise ValueError("X: not finite")
        self.pca_ = fit_pca(chosen, self.dimensions, self.seed)
        self.size_ = self._fit_model(chosen if self.pca_ is None else self.pca_.transform(chosen))
        self.n_features_in_ = X.shape[2]
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """The codes of images.

        Args:
            X: (images, places, channels) float; the places may be another number than in `fit`.

        Returns:
            (images, size_) float32, of L2 norm 1 (all zero only if every descriptor lies on a centre of `VLAD`).

        Raises:
            NotFittedError: before `fit`.
            ValueError: X has another shape, other channels than in `fit`, or is not finite.
        """
        check_is_fitted(self, "n_features_in_")
        X = check_descriptors(X, channels=self.n_features_in_)
        codes = np.empty((len(X), self.size_), np.float32)
        step = max(1, BLOCK // X.shape[1])
        for start in range(0, len(X), step):
            block = X[start: start + step].astype(np.float64)
            if not np.isfinite(block).all():
                raise ValueError(f"X: not finite in the images {start} to {start + len(block) - 1}")
            if self.pca_ is not None:
                block = self.pca_.transform(block.reshape(-1, X.shape[2])).reshape(*block.shape[:2], -1)
            codes[start: start + step] = self._encode(block)
        return codes

    @abstractmethod
    def _fit_model(self, sample: np.ndarray) -> int:
        """Fit to (descriptors, d) float64 after PCA; the entries of a code."""

    @abstractmethod
    def _encode(self, x: np.ndarray) -> np.ndarray:
        """(images, places, d) float64 after PCA -> (images, size_), normalised."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags
