"""Each code against its definition; the Fisher vector against the likelihood's slope."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.mixture import GaussianMixture

from cfnseg.lab.local_codes import VLAD, BagOfWords, FisherVector, fisher_gradients
from cfnseg.lab.pooled_codes import AveragePooling, CrossLayerPooling, FusedFeature
from tests.lab.samples import scenes

X, INDICATORS, _ = scenes(12, 11, places=15)
with_pca = pytest.mark.parametrize("dimensions", [None, 4])


def reduced(encoder, x: np.ndarray) -> np.ndarray:
    """Descriptors (images, places, d) as the encoder's model gets them, by the PCA's definition."""
    x = x.astype(np.float64)
    return x if encoder.pca_ is None else (x - encoder.pca_.mean_) @ encoder.pca_.components_.T


def scaled(code: np.ndarray) -> np.ndarray:
    return code / np.sqrt((code**2).sum())


@with_pca
def test_bag_of_words(dimensions):
    encoder = BagOfWords(words=7, dimensions=dimensions).fit(X)
    for image, code in zip(reduced(encoder, X), encoder.transform(X)):
        counts = np.zeros(7)
        for place in image:
            counts[
                np.argmin([((place - c) ** 2).sum() for c in encoder.kmeans_.cluster_centers_])
            ] += 1
        np.testing.assert_allclose(code, scaled(np.sqrt(counts / counts.sum())), atol=1e-6)


@with_pca
def test_vlad(dimensions):
    encoder = VLAD(centres=5, dimensions=dimensions).fit(X)
    centres = encoder.kmeans_.cluster_centers_
    for image, code in zip(reduced(encoder, X), encoder.transform(X)):
        sums = np.zeros(centres.shape)
        for place in image:
            k = np.argmin([((place - c) ** 2).sum() for c in centres])
            sums[k] += place - centres[k]
        sums = [scaled(s) if s.any() else s for s in sums]
        np.testing.assert_allclose(code, scaled(np.concatenate(sums)), atol=1e-6)


def test_vlad_of_descriptors_on_a_centre_has_no_noise():
    """A ReLU map's dead places are equal: they form one centre, their residual is rounding."""
    x = X.copy()
    x[:, :8] = -30.1
    encoder = VLAD(centres=4, dimensions=6).fit(x)
    code = encoder.transform(x)[0].reshape(4, 6)
    dead = encoder.kmeans_.predict(reduced(encoder, x[:1, :1])[0])[0]
    members = encoder.kmeans_.predict(reduced(encoder, x).reshape(-1, 6)) == dead
    assert members.sum() == 12 * 8
    assert not code[dead].any()
    assert not encoder.transform(x[:, :8]).any()


@with_pca
def test_fisher_vector(dimensions):
    encoder = FisherVector(components=3, dimensions=dimensions).fit(X)
    weights, means, deviations = (
        encoder.mixture_.weights_,
        encoder.mixture_.means_,
        np.sqrt(encoder.mixture_.covariances_),
    )
    for image, code in zip(reduced(encoder, X), encoder.transform(X)):
        by_means, by_deviations = np.zeros(means.shape), np.zeros(means.shape)
        for place in image:
            joint = np.array(
                [w * norm.pdf(place, m, s).prod() for w, m, s in zip(weights, means, deviations)]
            )
            for k, posterior in enumerate(joint / joint.sum()):
                away = (place - means[k]) / deviations[k]
                by_means[k] += posterior * away / np.sqrt(weights[k]) / len(image)
                by_deviations[k] += posterior * (away**2 - 1) / np.sqrt(2 * weights[k]) / len(image)
        raw = np.concatenate([by_means.ravel(), by_deviations.ravel()])
        np.testing.assert_allclose(code, scaled(np.sign(raw) * np.sqrt(abs(raw))), atol=1e-6)


def overlapping_mixture() -> GaussianMixture:
    """Components that share descriptors, so that the posteriors matter."""
    x = np.random.default_rng(2).normal(size=(400, 3)) * [1, 2, 0.3] + [5, 0, -1]
    return GaussianMixture(3, covariance_type="diag", random_state=0, max_iter=5, tol=1e-2).fit(x)


def likelihood(
    mixture: GaussianMixture, x: np.ndarray, means: np.ndarray, variances: np.ndarray
) -> float:
    """Mean log-likelihood of (places, d), written out."""
    densities = norm.pdf(x[:, None], means, np.sqrt(variances)).prod(2)
    return np.log(densities @ mixture.weights_).mean()


def test_fisher_gradients_are_the_likelihoods_slope():
    """Finite differences by means and variances, times diagonal Fisher information ** -0.5."""
    mixture = overlapping_mixture()
    means, variances, weights = mixture.means_, mixture.covariances_, mixture.weights_[:, None]
    x = np.random.default_rng(3).normal((5, 0, -1), size=(2, 9, 3))
    assert 0.05 < np.median(mixture.predict_proba(x[0])) < 0.95
    np.testing.assert_allclose(
        likelihood(mixture, x[0], means, variances), mixture.score(x[0]), rtol=1e-10
    )
    information = {"means": weights / variances, "variances": weights / (2 * variances**2)}
    for image, code in zip(x, fisher_gradients(mixture, x)):
        slopes = []
        for which, scale in information.items():
            slope, step = np.empty(means.shape), 1e-5
            for index in np.ndindex(means.shape):
                around = []
                for sign in (1, -1):
                    moved = {"means": means.copy(), "variances": variances.copy()}
                    moved[which][index] += sign * step
                    around.append(likelihood(mixture, image, **moved))
                slope[index] = (around[0] - around[1]) / (2 * step)
            slopes.append((slope / np.sqrt(scale)).ravel())
        np.testing.assert_allclose(code, np.concatenate(slopes), atol=1e-6)


def test_fisher_gradients_of_the_models_own_descriptors_are_white():
    """For one Gaussian the information is exact: its own descriptors give mean 0, covariance 1."""
    x = np.random.default_rng(4).normal(size=(20_000, 1, 2)) * [3, 0.5] + [1, 7]
    gradients = fisher_gradients(GaussianMixture(1, covariance_type="diag").fit(x[:, 0]), x)
    np.testing.assert_allclose(gradients.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(gradients.T), np.eye(4), atol=0.06)


@with_pca
def test_cross_layer_pooling(dimensions):
    encoder = CrossLayerPooling(dimensions=dimensions).fit((X, INDICATORS))
    for image, indicators, code in zip(
        reduced(encoder, X), INDICATORS, encoder.transform((X, INDICATORS))
    ):
        pooled = []
        for k in range(indicators.shape[1]):
            pooled.append(
                sum(place * max(float(a), 0) for place, a in zip(image, indicators[:, k]))
            )
        raw = np.concatenate(pooled)
        np.testing.assert_allclose(code, scaled(np.sign(raw) * np.sqrt(abs(raw))), atol=1e-6)


@pytest.mark.parametrize(
    "bad", [X, (X,), (X, INDICATORS[:, :3]), (X, INDICATORS[:5]), (X, INDICATORS[0])]
)
def test_cross_layer_pooling_wants_a_pair(bad):
    with pytest.raises(ValueError, match="X.*expected"):
        CrossLayerPooling().fit(bad)
    with pytest.raises(ValueError, match=r"X\[1\] \(indicators\): expected 4 channels"):
        CrossLayerPooling().fit((X, INDICATORS)).transform((X, INDICATORS[..., :2]))


def test_plain_features():
    np.testing.assert_allclose(AveragePooling().fit_transform(X)[0], scaled(sum(X[0])), rtol=1e-5)
    np.testing.assert_allclose(FusedFeature().fit_transform(X[:, 0])[3], scaled(X[3, 0]), rtol=1e-5)
    assert not FusedFeature().fit_transform(np.zeros((1, 3))).any()
