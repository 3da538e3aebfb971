"""What is fast: fusion at every pixel, and from logits at the finest stage to losses and class maps of the image's size.

Every operation has three versions with one result: the reference in torch operations, a lean one in strips that fit the cache,
and Triton kernels for CUDA. Lean is the default everywhere: the kernels are unmeasured on a GPU, and CFNSEG_OPS=triton asks
for them (`cfnseg.ops.dispatch`).
"""

from cfnseg.ops.dense import (
    dense_argmax,
    dense_confusion,
    dense_cross_entropy,
    dense_cross_entropy_sums,
    dense_scores,
    stride_of,
)
from cfnseg.ops.lc_fuse import lc_fuse, lc_fuse_reference, upsample

__all__ = ["dense_argmax", "dense_confusion", "dense_cross_entropy", "dense_cross_entropy_sums", "dense_scores", "lc_fuse",
           "lc_fuse_reference", "stride_of", "upsample"]
