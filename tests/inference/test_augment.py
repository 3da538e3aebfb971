"""Scales and mirroring: averaged logits lie at one place; a mirrored crop is fed as in training."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cfnseg.data.transforms import Span, crop_region
from cfnseg.inference.augment import one_view, view_logits
from cfnseg.models.segmenter import Output
from tests.inference.stubs import Place

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def noise(*shape):
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.25, 1.5, 2.0])
@pytest.mark.parametrize("size", [(96, 128), (101, 67), (360, 480)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_view_moves_nothing(size, scale, mirrored):
    """Place logits still hold the place after resizing and mirroring there and back."""
    ramp = (20 + torch.arange(size[1]) / 4).expand(1, 3, *size).byte()
    pixel, _, stride = one_view(Place(), ramp, WHOLE, scale, mirrored, scale)
    assert pixel.shape == (1, 3, -(-size[0] // stride), -(-size[1] // stride))
    assert (
        stride <= 4 / scale < 4 * stride
    )  # no coarser than the network's own cells, and not needlessly fine
    inner = slice(2, -3)  # the outermost cells have neighbours on one side only
    x, y = ((torch.arange(-(-n // stride)) + 0.5) * stride for n in size[::-1])
    place = x / size[1]
    torch.testing.assert_close(
        pixel[0, 0, 3, inner],
        (1 - place if mirrored else place)[inner],
        rtol=0,
        atol=2.1 / size[1] / scale,
    )
    torch.testing.assert_close(
        pixel[0, 1, inner, 3], (y / size[0])[inner], rtol=0, atol=2.1 / size[0] / scale
    )
    torch.testing.assert_close(
        pixel[0, 2, 3, inner], (19.5 + x / 4)[inner], rtol=0, atol=0.6
    )  # bytes are rounded


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([(1.0,), (0.5, 1.0), (0.75, 1.0, 1.5)]),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_size_has_its_cells(height, width, scales, flip):
    pixel, image, stride = view_logits(
        Place(), noise(2, 3, height, width), WHOLE.expand(2, 4), scales, flip
    )
    assert pixel.shape == (2, 3, -(-height // stride), -(-width // stride))
    assert pixel.isfinite().all()
    assert image.shape == (2, 3)


def test_a_mirrored_crop_gets_the_region_that_training_gives_it():
    seen = []

    class Watch(Place):
        def forward(self, images, region):
            seen.append((images, region))
            return super().forward(images, region)

    crop = noise(1, 3, 64, 96)
    rows, columns = Span(10, 74, 1.0, 0, 64), Span(40, 136, 1.0, 0, 96)
    plain, mirrored = (
        torch.from_numpy(crop_region((200, 300), rows, columns, (64, 96), m))[None]
        for m in (False, True)
    )
    view_logits(Watch(), crop, plain, (1.0,), flip=True)
    assert torch.equal(seen[0][0], crop)
    assert torch.equal(seen[0][1], plain)
    assert torch.equal(seen[1][0], crop.flip(-1))
    torch.testing.assert_close(seen[1][1], mirrored)


class Equivariant(nn.Module):
    """A mirror-equivariant network: the mean of a random one over an image and its mirror image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 8, stride=4, padding=2)

    def forward(self, images, region):
        scores = [self.conv(x / 255) for x in (images.float(), images.float().flip(-1))]
        pixel = (scores[0] + scores[1].flip(-1)) / 2 + region[:, 1, None, None, None]
        return Output(pixel, pixel.mean((2, 3)))


@torch.inference_mode()
def test_mirroring_changes_nothing_where_a_network_commutes_with_it():
    images, region = noise(2, 3, 64, 96), torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 0.4, 0.4]])
    alone, image, _ = view_logits(Equivariant(), images, region)
    both, both_image, _ = view_logits(Equivariant(), images, region, flip=True)
    torch.testing.assert_close(both, alone.log_softmax(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both_image, image, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_several_views_are_the_mean_of_their_probabilities():
    model, images, region = Equivariant(), noise(1, 3, 64, 64), WHOLE
    views = [
        one_view(model, images, region, scale, mirrored, 1.5)
        for scale in (0.75, 1.5)
        for mirrored in (False, True)
    ]
    pixel, image, stride = view_logits(model, images, region, (0.75, 1.5), flip=True)
    assert stride == 2
    mean = np.mean([v[0].softmax(1).numpy() for v in views], 0)
    np.testing.assert_allclose(pixel.exp().numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(
        image.sigmoid().numpy(), np.mean([v[1].sigmoid().numpy() for v in views], 0), rtol=1e-5
    )
    assert abs(views[0][0] - views[3][0]).max() > 0.01  # scales do differ
