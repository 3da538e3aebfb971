"""Fast operations: fusion at every pixel, and losses and class maps of the image's size.

Each operation has three versions with one result: the reference in torch operations, a lean one
in strips that fit the cache, and Triton kernels for CUDA. The lean version is the default;
CFNSEG_OPS=triton asks for the kernels (`cfnseg.ops.dispatch`).
"""

from cfnseg.ops.dense import (
    dense_argmax,
    dense_confusion,
    dense_cross_entropy,
    dense_cross_entropy_sums,
    dense_scores,
)
from cfnseg.ops.dense_reference import stride_of
from cfnseg.ops.lc_fuse import lc_fuse
from cfnseg.ops.lc_reference import lc_fuse_reference, upsample

__all__ = [
    "dense_argmax",
    "dense_confusion",
    "dense_cross_entropy",
    "dense_cross_entropy_sums",
    "dense_scores",
    "lc_fuse",
    "lc_fuse_reference",
    "stride_of",
    "upsample",
]
