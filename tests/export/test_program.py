"""The exported function computes what `Predictor` computes."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from cfnseg.export.program import Program
from cfnseg.inference.augment import scaled
from cfnseg.inference.predictor import Predictor
from cfnseg.models.weights import load
from tests.export.samples import noise, trained


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"test_scale": 1.5},
        {"test_scale": 2 / 3},
        {"test_scale": 3.0, "grid": (1, 1)},
        {"fusion": "adaptive", "strides": (8, 16, 32)},
        {"name": "plain"},
        {"name": "hed", "test_scale": 1.25},
        {"name": "fpn"},
    ],
    ids=str,
)
def test_it_says_what_the_predictor_says(tmp_path, model):
    weights = trained(tmp_path / "w.safetensors", **model)
    program, predict = Program(weights.model), Predictor(weights, "cpu")
    for size in ((64, 96), (97, 131), (50, 200)):
        image = noise(*size)
        expected = predict(image)
        with torch.no_grad():
            mask, confidence, logits = program(torch.from_numpy(image)[None])
        assert logits.shape[-2:] == tuple(-(-n // program.cell) for n in size)
        assert (mask[0].numpy() == expected.mask).mean() > 0.9999
        assert np.abs(confidence[0].numpy() - expected.confidence).max() < 1e-4


def test_images_of_a_batch_do_not_meet(weights):
    program = Program(load(weights).model)
    images = torch.from_numpy(np.stack([noise(60, 70, seed) for seed in range(3)]))
    with torch.no_grad():
        together, alone = program(images), [program(image[None]) for image in images]
    for i, outputs in enumerate(alone):
        assert torch.equal(together[0][i], outputs[0][0])
        torch.testing.assert_close(together[2][i], outputs[2][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (20, 33), (32, 64)])
def test_small_images(weights, size):
    with torch.no_grad():
        mask, confidence, _ = Program(load(weights).model)(torch.from_numpy(noise(*size))[None])
    assert mask.shape == confidence.shape == (1, *size)
    assert confidence.isfinite().all()


def test_half_precision_is_near(weights):
    image = torch.from_numpy(noise(64, 96))[None]
    with torch.no_grad():
        half, full = (Program(load(weights).model, half)(image) for half in (True, False))
    assert half[2].dtype == torch.float32
    assert (half[0] == full[0]).float().mean() > 0.98


@settings(deadline=None)
@given(st.integers(1, 5000), st.sampled_from([0.1, 0.5, 2 / 3, 0.75, 1.25, 1.5, 1.75, 3.0]))
def test_a_scaled_side_is_the_nearest(side, scale):
    assert abs(scaled(side, scale) - side * scale) <= 0.5 + 1e-3
