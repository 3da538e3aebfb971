"""From logits at the finest stage to the image's size, without storing (N, C, H, W)."""

from cfnseg.ops.dense import dense_argmax, dense_cross_entropy, dense_scores, stride_of

__all__ = ["dense_argmax", "dense_cross_entropy", "dense_scores", "stride_of"]
