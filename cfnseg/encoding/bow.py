"""Bag of words: how often each visual word occurs in an image."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans

from cfnseg.encoding.local import LocalEncoder, need


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
