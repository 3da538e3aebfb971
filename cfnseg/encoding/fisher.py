"""Fisher vector: which way the descriptors of an image would move a mixture of Gaussians."""

from __future__ import annotations

import numpy as np
from sklearn.mixture import GaussianMixture

from cfnseg.encoding.local import LocalEncoder, need, signed_root, unit

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
