"""Any image in, a mask of exactly its size out; windows agree with the whole image."""

import numpy as np
import pytest
import torch
from torch import nn

from cfnseg.config import Model
from cfnseg.data.camvid import LABELS
from cfnseg.engine import predict
from cfnseg.engine.checkpoint import Weights
from cfnseg.engine.predict import Predictor, whole_logits
from cfnseg.models.build import build_model
from cfnseg.models.cfn import Output
from cfnseg.ops import stride_of
from tests.conftest import ENCODER

SETTINGS = Model(encoder=ENCODER, encoder_weights=None, width=8, grid=(2, 3))


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    return Predictor(Weights(build_model(SETTINGS, 11).eval(), SETTINGS, LABELS), "cpu")


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (31, 33), (32, 32), (97, 131), (360, 480)])
def test_a_mask_of_exactly_the_images_size(predictor, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = predictor(image)
    assert result.mask.shape == result.confidence.shape == size
    assert result.mask.dtype == np.uint8
    assert result.mask.max() < 11
    assert 1 / 11 - 1e-6 <= result.confidence.min() <= result.confidence.max() <= 1 + 1e-6
    assert sorted(result.present) == sorted(LABELS.names)
    assert list(result.present.values()) == sorted(result.present.values(), reverse=True)


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))])
def test_other_arrays_are_refused(predictor, image):
    with pytest.raises(ValueError, match="image: expected"):
        predictor(image)


class Place(nn.Module):
    """A model without context: logits are the place of each cell, and the mean colour of its 4 x 4 pixels."""

    def forward(self, images, region=None):
        h, w = images.shape[-2:]
        images = nn.functional.pad(images.float(), (0, -w % 4, 0, -h % 4), mode="replicate")
        region = torch.tensor([[0.0, 0.0, 1.0, 1.0]]) if region is None else region
        x0, y0, x1, y1 = region[0]
        u = x0 + (x1 - x0) * (torch.arange(-(-w // 4)) + 0.5) * 4 / w
        v = y0 + (y1 - y0) * (torch.arange(-(-h // 4)) + 0.5) * 4 / h
        colour = nn.functional.avg_pool2d(images, 4).mean(1)[0]
        pixel = torch.stack([u.expand(len(v), -1), v[:, None].expand(-1, len(u)), colour])
        return Output(pixel[None], torch.tensor([[float(images.max()), 0.0, 0.0]]))


@pytest.mark.parametrize("size", [(1024, 1028), (1500, 2200), (2048, 1024), (4096, 512)])
def test_windows_know_their_place_and_leave_no_seam(size):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    whole = whole_logits(Place(), image, max_pixels=10**9)
    windows = whole_logits(Place(), image, max_pixels=1)
    torch.testing.assert_close(windows.pixel, whole.pixel, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(windows.image, whole.image)


@pytest.mark.parametrize("scale", [0.5, 1.25, 1.5, 2.0])
@pytest.mark.parametrize("size", [(96, 128), (101, 67), (360, 480)])
def test_test_scale_moves_nothing(size, scale):
    """Logits that are the place in the image must still be it, at the original's cells, after resizing and back."""
    model = Place()
    model.test_scale = scale
    pixel = whole_logits(model, torch.full((3, *size), 9, dtype=torch.uint8)).pixel
    stride = stride_of(pixel, size)
    assert stride <= 4 / scale < 4 * stride  # no coarser than the network's own cells, and not needlessly fine
    for axis, (length, found) in enumerate(zip(size[::-1], (pixel[0, 0], pixel[0, 1].T))):
        centre = (torch.arange(found.shape[1]) + 0.5) * stride / length
        inner = slice(2, -3)  # the outermost cells have neighbours on one side only
        torch.testing.assert_close(found[3, inner], centre[inner], rtol=0, atol=2.1 / length / scale, msg=f"axis {axis}")
    assert pixel[0, 2].sub(9).abs().max() < 1e-3


@pytest.mark.parametrize("length", [1, 32, 1000, 1024, 1025, 1920, 4000, 8192])
def test_windows_cover_everything(length):
    starts = predict._starts(length)
    covered = np.zeros(length, bool)
    for start in starts:
        assert start % 32 == 0
        covered[start : start + predict.WINDOW] = True
    assert covered.all()
    assert all(b - a <= predict.WINDOW - predict.OVERLAP for a, b in zip(starts, starts[1:]))
