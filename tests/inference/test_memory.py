"""Memory estimates before an image is read; test_infer_sizes.py compares them with real peaks."""

import pytest
import torch

from cfnseg.config import Model
from cfnseg.inference.memory import _Alive, expected_peak, through_windows
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.models.build import build_model
from tests.conftest import ENCODER


@pytest.fixture(scope="module")
def model():
    return build_model(Model(encoder=ENCODER, encoder_weights=None, width=8, grid=(2, 3)), 5).eval()


def test_tensors_are_counted_while_they_live():
    with _Alive() as alive:
        a = torch.zeros(1000)
        a.view(10, 100).add_(1)  # no memory of its own
        b = a + 1
        del a
        c = b * 2
        assert alive.now == 8000
        assert alive.peak == 8000
        del b, c
    assert alive.now == 0


def test_only_the_image_and_its_outputs_grow_with_its_height(model):
    low, high = (expected_peak(model, (height, 4000), PLAIN) for height in (4000, 40_000))
    assert (low.strip, low.network) == (high.strip, high.network)
    assert sum(high) - sum(low) == 8 * 36_000 * 4000  # RGB, mask, float32 confidence


def test_batches_and_windows_and_views_cost_what_they_are(model):
    one = expected_peak(model, (2000, 2000), Inference((512, 512))).network
    assert expected_peak(
        model, (2000, 2000), Inference((512, 512), batch=3)
    ).network == pytest.approx(3 * one, rel=0.01)
    assert expected_peak(model, (2000, 2000), Inference((1024, 512))).network == pytest.approx(
        2 * one, rel=0.01
    )
    assert (
        expected_peak(model, (2000, 2000), Inference((512, 512), scales=(2.0,))).network > 3 * one
    )
    assert (
        expected_peak(model, (400, 100), Inference((512, 512), batch=3)).network < one / 4
    )  # one window, no larger than the image


def test_told_for_images_that_go_through_windows(model):
    assert through_windows(model, (1024, 2048), PLAIN, 2**30) is None
    line = through_windows(model, (1025, 2048), PLAIN, 2**30)
    assert line.startswith("1025 x 2048 px in 6 windows of 1024 x 1024; memory up to 1.")
    assert "(process 1.00, image 0.01, outputs 0.01, strip " in line
