"""VLAD: how the descriptors of an image lie around each visual word."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans

from cfnseg.encoding.local import LocalEncoder, need, unit

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
