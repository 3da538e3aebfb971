"""Test-time augmentation: a batch of crops at several scales and mirrored, averaged at the crops'
own cells."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfnseg.ops import stride_of
from cfnseg.ops.lc_reference import hat, read_grid


def view_logits(
    model: nn.Module,
    images: Tensor,
    region: Tensor,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    sigmoid: bool = False,
) -> tuple[Tensor, Tensor, int]:
    """Logits of crops, each seen in several ways.

    Args:
        model: a segmentation model in eval mode, on ``images``' device.
        images: (N, 3, h, w) uint8 RGB, or (N, C, h, w) of the model's bands; any h, w >= 1. Views
            with a side under 32 are padded by their border.
        region: (N, 4) x0, y0, x1, y1 of each crop in its full image, 1 = full width or height.
        scales: factors by which the crops are resized, antialiased where they shrink.
        flip: see each scale mirrored left to right as well.
        sigmoid: the pixel logits are of sigmoid outputs.

    Returns:
        Pixel logits (N, C, ceil(h / s), ceil(w / s)), image logits (N, C), both float32, and the
        stride s, which is no coarser than the finest view's cells (32 the most). They are the
        logits of a single view, else the logarithm of the mean softmax and the logit of the mean
        sigmoid, with ``sigmoid`` the latter for both.
    """
    views = [(scale, mirrored) for scale in scales for mirrored in (False, True)[: 1 + flip]]
    pixel = image = None
    for scale, mirrored in views:
        cells, labels, stride = one_view(model, images, region, scale, mirrored, max(scales))
        if len(views) == 1:
            return cells, labels, stride
        cells, labels = cells.sigmoid() if sigmoid else cells.softmax(1), labels.sigmoid()
        pixel = cells if pixel is None else pixel.add_(cells)
        image = labels if image is None else image.add_(labels)
    pixel, image = pixel.div_(len(views)), image.div_(len(views)).logit(1e-6)
    if sigmoid:
        return pixel.logit_(1e-6), image, stride
    return pixel.clamp_(min=torch.finfo(pixel.dtype).tiny).log_(), image, stride


def one_view(
    model: nn.Module, images: Tensor, region: Tensor, scale: float, mirrored: bool, finest: float
) -> tuple[Tensor, Tensor, int]:
    """What `view_logits` returns, of one view; ``finest`` is the largest scale, which decides the
    stride.

    A mirrored view gets the mirrored region (1 - x1, y0, 1 - x0, y1), as mirrored training samples
    do: the place where its pixels lie in the mirrored full image.
    """
    whole = images.dtype == torch.uint8  # pixels of other types are computed with as floats
    size, images = tuple(images.shape[-2:]), images if whole else images.float()
    seen = size if scale == 1 else tuple(max(1, scaled(n, scale)) for n in size)
    if seen != size:
        resized = F.interpolate(
            images.float(), seen, mode="bilinear", align_corners=False, antialias=scale < 1
        )
        images = whole_levels(resized).byte() if whole else resized
    if mirrored:
        images = images.flip(-1)
        x0, y0, x1, y1 = region.unbind(1)
        region = torch.stack([1 - x1, y0, 1 - x0, y1], 1)
    bottom, right = (max(0, 32 - n) for n in seen)
    if bottom or right:
        images = F.pad(images.float(), (0, right, 0, bottom), mode="replicate")
        images = images.byte() if whole else images
        grown = region.new_tensor([(seen[1] + right) / seen[1], (seen[0] + bottom) / seen[0]])
        region = torch.cat(
            [region[:, :2], region[:, :2] + (region[:, 2:] - region[:, :2]) * grown], 1
        )
    output = model(images.contiguous(memory_format=torch.channels_last), region)
    coarse = stride_of(output.pixel, (seen[0] + bottom, seen[1] + right))
    pixel = output.pixel[..., : -(-seen[0] // coarse), : -(-seen[1] // coarse)].float()
    stride = cell_of(coarse, finest)
    if seen != size or mirrored or stride != coarse:
        with torch.autocast(pixel.device.type, enabled=False):
            pixel = _at_cells(pixel, coarse, seen, size, stride, mirrored)
    return pixel, output.image.float(), stride


def whole_levels(images: Tensor) -> Tensor:
    """Pixels in 0..255 as whole numbers, rounded at .4877 in place of .5.

    Resized pixels are often just half a level, where each runtime errs in its own direction. No
    usual factor makes pixels that lie near .4877.
    """
    return images.add(0.5123).floor().clamp(0, 255)


def cell_of(stride: int, scale: float) -> int:
    """The stride of logits, in pixels of an image that a network saw resized by ``scale``: a power
    of two of 1 to 32, no coarser than its cells of ``stride``."""
    return min(32, 2 ** int(math.log2(max(1.0, stride / scale))))


def scaled(side: int, scale: float) -> int:
    """A side in pixels times ``scale``, rounded half up: in whole numbers, which can be traced."""
    ratio = Fraction(scale).limit_denominator(10_000)
    return (2 * side * ratio.numerator + ratio.denominator) // (2 * ratio.denominator)


def _at_cells(
    pixel: Tensor,
    coarse: int,
    seen: tuple[int, int],
    size: tuple[int, int],
    stride: int,
    mirrored: bool,
) -> Tensor:
    """Logits (N, C, h, w) at stride ``coarse`` of a view of size ``seen``, read bilinearly at the
    cells of stride ``stride`` of the crop of size ``size`` that it shows."""
    matrices = []
    for axis, (own, other, knots) in enumerate(zip(size, seen, pixel.shape[-2:])):
        cells = -(-own // stride)
        ends = [0.0, cells * stride * other / own]  # of the crop's cells, in the view's pixels
        if mirrored and axis == 1:
            ends = [other - end for end in ends]
        start, stop = pixel.new_tensor(ends).div(knots * coarse)[:, None]
        matrices.append(hat(start, stop, cells, knots)[0])
    read = read_grid(pixel.flatten(0, 1), *matrices)
    return read.unflatten(0, pixel.shape[:2])
