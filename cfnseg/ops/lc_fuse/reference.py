"""The locally-connected fusion as the composition of torch operations that defines it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cfnseg.ops.linear import hat, upsample


def lc_fuse_reference(branches: Sequence[Tensor], weight: Tensor, bias: Tensor, region: Tensor | None, size: tuple[int, int],
                      relu: bool = True) -> Tensor:
    """See `cfnseg.ops.lc_fuse`; every step's result is kept for backward."""
    region = weight.new_tensor([[0, 0, 1, 1]]) if region is None else region.to(weight)
    x0, y0, x1, y1 = region.unbind(1)
    rows, columns = hat(y0, y1, size[0], weight.shape[2]), hat(x0, x1, size[1], weight.shape[3])
    read = [torch.matmul(torch.matmul(rows[:, None], g), columns[:, None].mT) for g in (*weight, bias)]
    total = read[-1]
    for w, branch in zip(read, branches):
        total = total + w * upsample(branch, size)
    return F.relu(total) if relu else total
