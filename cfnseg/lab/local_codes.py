"""Encoders of local descriptors in scikit-learn's convention: one vector per image.

Bag of words, VLAD and Fisher vector, for a linear SVM or for retrieval. Before fused features were
trained, such codes were how one used a net's inner stages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted

BLOCK = 8192  # descriptors encoded at once: bounds the memory of float64 copies and posteriors
NOISE = 1e-9  # share of the summed descriptors below which a residual sum is rounding
FLOOR = 1e-4  # least variance as a share of the mean variance: dead channels have no width


def signed_root(x: np.ndarray) -> np.ndarray:
    """sign(x) sqrt|x|, which damps dominant entries (Perronnin et al. 2010)."""
    return np.sign(x) * np.sqrt(np.abs(x))


def check_descriptors(x: np.ndarray, name: str = "X", channels: int | None = None) -> np.ndarray:
    """``x`` as a float array (images, places >= 1, channels >= 1); ValueError otherwise."""
    x = np.asarray(x)
    if x.ndim != 3 or 0 in x.shape[1:] or x.dtype.kind != "f":
        raise ValueError(
            f"{name}: expected a float array (images, places, channels), got {x.dtype} {x.shape}"
        )
    if channels not in (None, x.shape[2]):
        raise ValueError(f"{name}: expected {channels} channels as in fit, got {x.shape[2]}")
    return x


def sampled(x: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most ``count`` local descriptors of ``x`` (images, places, channels).

    Returns:
        (descriptors, channels) float64: sums of k-means and EM lose too much in float32.
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


@dataclass(eq=False, repr=False, kw_only=True)
class LocalEncoder(TransformerMixin, BaseEstimator, ABC):
    """Local descriptors -> PCA -> one code per image. A child fits a model and encodes blocks.

    Equal seeds give equal codes, up to the rounding of sums that threads add in another order.

    Args:
        dimensions: PCA of the descriptors to so many, or to as many as there are; None = no PCA.
        sample: the most descriptors to fit on.
        seed: of the sample, PCA and model.

    Attributes:
        pca_: the fitted PCA, or None.
        n_features_in_: channels of the descriptors.
        size_: entries of the code.
    """

    dimensions: int | None = 64
    sample: int = 50_000
    seed: int = 0

    def fit(self, X: np.ndarray, y: object = None) -> LocalEncoder:
        """Fit PCA and model to a seeded sample of the descriptors.

        Args:
            X: (images, places, channels) float.
            y: not used.

        Raises:
            ValueError: X has another shape or is not finite, or a setting is impossible for X.
        """
        x, *_ = self._parts(X)
        chosen = sampled(x, self.sample, self.seed)
        if not np.isfinite(chosen).all():
            raise ValueError("X: not finite")
        self.pca_ = None
        if self.dimensions is not None:
            if self.dimensions < 1:
                raise ValueError(
                    f"dimensions: expected at least 1, or None for no PCA, got {self.dimensions}"
                )
            size = min(self.dimensions, *chosen.shape)
            self.pca_ = PCA(size, random_state=self.seed).fit(chosen)
            chosen = self.pca_.transform(chosen)
        self.size_ = self._fit_model(chosen)
        self.n_features_in_ = x.shape[2]
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """The codes of images.

        Args:
            X: (images, places, channels) float; the number of places may differ from `fit`.

        Returns:
            (images, size_) float32 of L2 norm 1; a zero code stays zero.

        Raises:
            NotFittedError: before `fit`.
            ValueError: X has another shape, other channels than in `fit`, or is not finite.
        """
        check_is_fitted(self, "n_features_in_")
        parts = self._parts(X, self.n_features_in_)
        images, places, _ = parts[0].shape
        codes = np.empty((images, self.size_), np.float32)
        step = max(1, BLOCK // places)
        for start in range(0, images, step):
            x, *others = (part[start : start + step].astype(np.float64) for part in parts)
            if not all(np.isfinite(part).all() for part in (x, *others)):
                raise ValueError(f"X: not finite in the images {start} to {start + len(x) - 1}")
            if self.pca_ is not None:
                x = self.pca_.transform(x.reshape(-1, x.shape[2])).reshape(*x.shape[:2], -1)
            codes[start : start + step] = normalize(self._encode(x, *others))
        return codes

    def _parts(self, X: np.ndarray, channels: int | None = None) -> tuple[np.ndarray, ...]:
        """The checked arrays of X, the descriptors first; ``channels`` as in `fit`."""
        return (check_descriptors(X, channels=channels),)

    @abstractmethod
    def _fit_model(self, sample: np.ndarray) -> int:
        """Fit to (descriptors, d) float64 after PCA; the entries of a code."""

    @abstractmethod
    def _encode(self, x: np.ndarray) -> np.ndarray:
        """(images, places, d) float64 after PCA -> (images, size_), not normalised."""


def _need(sample: np.ndarray, name: str, count: int) -> None:
    """ValueError unless 1 <= ``count`` <= the descriptors sampled."""
    if not 1 <= count <= len(sample):
        raise ValueError(
            f"{name}={count}: expected 1 to {len(sample)}, "
            "as many as there are descriptors to fit on"
        )


@dataclass(eq=False, repr=False)
class BagOfWords(LocalEncoder):
    """Root of the histogram of nearest centres (Sivic & Zisserman 2003, Csurka et al. 2004).

    On roots, a linear SVM and the cosine compare histograms by Hellinger's kernel (Vedaldi &
    Zisserman 2012); on plain counts, frequent words would dominate.

    Args:
        words: k-means centres = entries of the code.
        dimensions, sample, seed: see `LocalEncoder`.
    """

    words: int = 512

    def _fit_model(self, sample: np.ndarray) -> int:
        _need(sample, "words", self.words)
        kmeans = KMeans(self.words, n_init=1, max_iter=100, random_state=self.seed)
        self.kmeans_ = kmeans.fit(sample)
        return self.words

    def _encode(self, x: np.ndarray) -> np.ndarray:
        words = self.kmeans_.predict(x.reshape(-1, x.shape[2])).reshape(x.shape[:2])
        return np.sqrt([np.bincount(image, minlength=self.words) for image in words])


@dataclass(eq=False, repr=False)
class VLAD(LocalEncoder):
    """Residual sums per k-means centre (Jégou et al. 2010), each scaled to L2 norm 1.

    The scaling is the intra-normalisation of Arandjelovic & Zisserman 2013: a pattern that repeats
    at one centre does not outweigh the rest. A centre without descriptors has zeros.

    Args:
        centres: k-means centres; the code has centres x dimensions entries, centre by centre.
        dimensions, sample, seed: see `LocalEncoder`.
    """

    centres: int = 64

    def _fit_model(self, sample: np.ndarray) -> int:
        _need(sample, "centres", self.centres)
        kmeans = KMeans(self.centres, n_init=1, max_iter=100, random_state=self.seed)
        self.kmeans_ = kmeans.fit(sample)
        return self.centres * sample.shape[1]

    def _encode(self, x: np.ndarray) -> np.ndarray:
        images, places, depth = x.shape
        nearest = self.kmeans_.predict(x.reshape(-1, depth)).reshape(images, 1, places)
        member = (nearest == np.arange(self.centres)[:, None]).astype(x.dtype)
        sums = member @ x - member.sum(2, keepdims=True) * self.kmeans_.cluster_centers_
        # rounding must not be scaled to norm 1
        summed = member @ np.linalg.norm(x, axis=2, keepdims=True)
        sums *= np.linalg.norm(sums, axis=2, keepdims=True) > NOISE * summed
        return normalize(sums.reshape(-1, depth)).reshape(images, -1)


def fisher_gradients(mixture: GaussianMixture, x: np.ndarray) -> np.ndarray:
    """Gradients of the mean log-likelihood, scaled by the root of the Fisher information.

    With posterior g_k, weight w_k, mean m_k, standard deviation s_k, and means over the places
    (Sánchez et al. 2013):
        by means      mean(g_k (x - m_k) / s_k) / sqrt(w_k)
        by deviations mean(g_k ((x - m_k)^2 / s_k^2 - 1)) / sqrt(2 w_k)
    The second equals the gradient by variances: the Fisher scaling undoes the change of variable.
    Gradients by weights add little (ibid.) and are left out.

    Args:
        mixture: fitted, of diagonal covariances.
        x: (images, places, d) float64.

    Returns:
        (images, 2 x components x d): all means, component by component, then all deviations.
    """
    images, places, depth = x.shape
    weights, means, variances = mixture.weights_[:, None], mixture.means_, mixture.covariances_
    posterior = mixture.predict_proba(x.reshape(-1, depth)).reshape(images, places, -1)
    posterior = posterior.swapaxes(1, 2)
    share = posterior.mean(2)[..., None]
    # moments about the components' means
    first = posterior @ x / places - share * means
    second = posterior @ (x * x) / places - (2 * first + share * means) * means
    by_means = first / np.sqrt(variances * weights)
    by_deviations = (second / variances - share) / np.sqrt(2 * weights)
    return np.concatenate([by_means, by_deviations], 1).reshape(images, -1)


@dataclass(eq=False, repr=False)
class FisherVector(LocalEncoder):
    """Improved Fisher vector: the signed root of `fisher_gradients` (Perronnin et al. 2010).

    Args:
        components: Gaussians; the code has 2 x components x dimensions entries. 32 components make
            it as long as `VLAD` with 64 centres.
        dimensions, sample, seed: see `LocalEncoder`. A diagonal mixture fits descriptors after PCA
            better.
    """

    components: int = 32

    def _fit_model(self, sample: np.ndarray) -> int:
        _need(sample, "components", self.components)
        floor = max(FLOOR * sample.var(0).mean(), 1e-12)
        self.mixture_ = GaussianMixture(
            self.components, covariance_type="diag", reg_covar=floor, random_state=self.seed
        ).fit(sample)
        return 2 * self.components * sample.shape[1]

    def _encode(self, x: np.ndarray) -> np.ndarray:
        return signed_root(fisher_gradients(self.mixture_, x))
