"""Images that look alike: a perceptual hash of 64 bits, and all pairs of hashes within a Hamming distance."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

BITS = 64
SIDE = 16  # of the thumbnail that confirms what the hash suspects


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) uint8 gray of an image (H, W, 3) uint8 RGB, each pixel the mean of its part."""
    return cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def perceptual_hash(image: np.ndarray) -> int:
    """The 64-bit pHash of an image (H, W, 3) uint8 RGB: which of its lowest 8 x 8 DCT frequencies lie above their median.

    Source: Zauner 2010, Implementation and benchmarking of perceptual image hash functions, section 3.2.1. Size, brightness,
    contrast and compression hardly change it.
    """
    gray = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(gray.astype(np.float32))[:8, :8].ravel()
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def distances(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> np.ndarray:
    """Hamming distances of hashes, broadcast: uint8 in 0..64."""
    different = a ^ b
    return np.unpackbits(different[..., None].view(np.uint8), axis=-1).sum(-1, dtype=np.uint8)


def near_pairs(hashes: NDArray[np.uint64], most: int) -> np.ndarray:
    """All (i, j), i < j, of hashes at most ``most`` bits apart, sorted: (n, 2) int64.

    Hashes are cut into ``most`` + 1 bands of bits: two that differ in ``most`` bits agree in one band at least, so only
    those that share a band are compared (the pigeonhole principle; Norouzi et al. 2012, Fast search in Hamming space).
    """
    found = [np.empty((0, 2), np.int64)]
    edges = np.linspace(0, BITS, most + 2).round().astype(int)
    for low, high in zip(edges, edges[1:]):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order], prepend=~band[order[:1]]))
        for group in np.split(order, starts[1:]):
            for position in range(len(group) - 1):  # row by row: a large group's whole matrix may not fit memory
                others = group[position + 1:]
                near = others[distances(hashes[group[position]], hashes[others]) <= most]
                if len(near):
                    found.append(np.sort(np.stack([np.full_like(near, group[position]), near], 1), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two thumbnails in -1..1; 0 if one is constant."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale else 0.0
