"""Codes of local descriptors: bag of words, VLAD, Fisher vector."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
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


class BagOfWords(LocalEncoder):
    """Histogram of the nearest k-means centres (Sivic & Zisserman 2003; Csurka et al. 2004), L1-normalised, then its root.

    The root of a histogram of sum 1 has L2 norm 1: a linear SVM and the cosine then compare histograms by Hellinger's kernel
    (Vedaldi & Zisserman 2012), where plain counts would be ruled by the frequent words.

    Args:
        words: k-means centres = entries of the code.
        dimensions: PCA of the descriptors to so many, or to as many as there are; None = no PCA.
        sample: the most descriptors to fit on.
        seed: of the sample, PCA and k-means.
    """

    def __init__(self, words: int = 512, dimensions: int | None = 64, sample: int = 50_000, seed: int = 0) -> None:
        self.words = words
        self.dimensions = dimensions
        self.sample = sample
        self.seed = seed

    def _fit_model(self, sample: np.ndarray) -> int:
        need(sample, "words", self.words)
        self.kmeans_ = KMeans(self.words, n_init=1, max_iter=100, random_state=self.seed).fit(sample)
        return self.words

    def _encode(self, x: np.ndarray) -> np.ndarray:
        images, places, depth = x.shape
        words = self.kmeans_.predict(x.reshape(-1, depth)) + np.repeat(np.arange(images) * self.words, places)
        return np.sqrt(np.bincount(words, minlength=images * self.words).reshape(images, -1) / places)


NOISE = 1e-9  # a residual sum below this share of the descriptors summed is rounding, and must not be scaled to norm 1


class VLAD(LocalEncoder):
    """Residual sums per k-means centre (Jégou et al. 2010), each scaled to norm 1, then all of them together.

    The first step is the intra-normalisation of Arandjelovic & Zisserman 2013: a centre that a pattern repeats at does not
    outweigh the rest. A centre without descriptors leaves zeros.

    Args:
        centres: k-means centres; the code has centres x dimensions entries, centre by centre.
        dimensions: PCA of the descriptors to so many, or to as many as there are; None = no PCA.
        sample: the most descriptors to fit on.
        seed: of the sample, PCA and k-means.
    """

    def __init__(self, centres: int = 64, dimensions: int | None = 64, sample: int = 50_000, seed: int = 0) -> None:
        self.centres = centres
        self.dimensions = dimensions
        self.sample = sample
        self.seed = seed

    def _fit_model(self, sample: np.ndarray) -> int:
        need(sample, "centres", self.centres)
        self.kmeans_ = KMeans(self.centres, n_init=1, max_iter=100, random_state=self.seed).fit(sample)
        return self.centres * sample.shape[1]

    def _encode(self, x: np.ndarray) -> np.ndarray:
        images, places, depth = x.shape
        nearest = self.kmeans_.predict(x.reshape(-1, depth)).reshape(images, places)
        member = (nearest[:, None] == np.arange(self.centres)[:, None]).astype(x.dtype)  # (images, centres, places)
        residuals = member @ x - member.sum(2, keepdims=True) * self.kmeans_.cluster_centers_
        summed = member @ np.linalg.norm(x, axis=2, keepdims=True)  # (images, centres, 1)
        residuals *= np.linalg.norm(residuals, axis=2, keepdims=True) > NOISE * summed
        return unit(unit(residuals).reshape(images, -1))


FLOOR = 1e-4  # least variance, as a share of the descriptors' mean variance: dead channels make components of no width


def fisher_gradients(mixture: GaussianMixture, x: np.ndarray) -> np.ndarray:
    """Gradients of the mean log-likelihood of an image's descriptors, scaled by the Fisher information's root.

    With posterior g_k, weight w_k, mean m_k and standard deviation s_k, and means over the places (Sánchez et al. 2013):
        by means      mean(g_k (x - m_k) / s_k) / sqrt(w_k)
        by deviations mean(g_k ((x - m_k)^2 / s_k^2 - 1)) / sqrt(2 w_k)
    The latter is the same by variances: the Fisher scaling takes the change of variable back. The gradients by weights are left
    out, as they add little (ibid.).

    Args:
        mixture: fitted, of diagonal covariances.
        x: (images, places, d) float64.

    Returns:
        (images, 2 x components x d): all means, component by component, then all deviations.
    """
    images, places, depth = x.shape
    weights, means, variances = mixture.weights_[:, None], mixture.means_, mixture.covariances_
    posterior = mixture.predict_proba(x.reshape(-1, depth)).reshape(images, places, -1).swapaxes(1, 2)
    share = posterior.mean(2)[..., None]
    first = posterior @ x / places - share * means  # moments about the components' means
    second = posterior @ (x * x) / places - (2 * first + share * means) * means
    by_means = first / np.sqrt(variances * weights)
    by_deviations = (second / variances - share) / np.sqrt(2 * weights)
    return np.concatenate([by_means.reshape(images, -1), by_deviations.reshape(images, -1)], 1)


class FisherVector(LocalEncoder):
    """Improved Fisher vector: `fisher_gradients` of a diagonal mixture, signed root, L2 norm 1 (Perronnin et al. 2010).

    Args:
        components: Gaussians; the code has 2 x components x dimensions entries. 32 is as long as `VLAD` of 64 centres.
        dimensions: PCA of the descriptors to so many, or to as many as there are; None = no PCA, though a diagonal mixture
            fits decorrelated descriptors better.
        sample: the most descriptors to fit on.
        seed: of the sample, PCA and the mixture's k-means start.
    """

    def __init__(self, components: int = 32, dimensions: int | None = 64, sample: int = 50_000, seed: int = 0) -> None:
        self.components = components
        self.dimensions = dimensions
        self.sample = sample
        self.seed = seed

    def _fit_model(self, sample: np.ndarray) -> int:
        need(sample, "components", self.components)
        floor = max(FLOOR * sample.var(0).mean(), 1e-12)
        self.mixture_ = GaussianMixture(self.components, covariance_type="diag", reg_covar=floor, random_state=self.seed).fit(sample)
        return 2 * self.components * sample.shape[1]

    def _encode(self, x: np.ndarray) -> np.ndarray:
        return unit(signed_root(fisher_gradients(self.mixture_, x)))
