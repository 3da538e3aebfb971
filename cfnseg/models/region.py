"""Where a crop lies in its full image."""

from __future__ import annotations

import torch
from torch import Tensor


def region_of(box: tuple[float, float, float, float], size: tuple[int, int]) -> Tensor:
    """The region of a crop, as the networks' ``forward`` takes it for each image of a batch.

    Args:
        box: left, top, right and bottom of the crop in pixels, as `PIL.Image.Image.crop` has them;
            outside the image for a padded crop.
        size: (H, W) of the full image.

    Returns:
        (4,) float32 x0, y0, x1, y1 as shares of the full width and height.

    Example:
        >>> import cfnseg
        >>> cfnseg.region_of((160, 0, 480, 360), size=(360, 480)).tolist()  # the right two thirds
        [0.3333333432674408, 0.0, 1.0, 1.0]
    """
    height, width = size
    return torch.tensor(box, dtype=torch.float32) / torch.tensor([width, height, width, height])
