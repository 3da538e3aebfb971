"""Confidence and probabilities as files: what the mask was chosen from, in bounded memory."""

import cv2
import numpy as np
import pytest
import torch

from cfnseg.config import Model
from cfnseg.data.files import read_image
from cfnseg.data.formats.shapes import ShapesDataset
from cfnseg.drawing import write_jpeg
from cfnseg.inference import windows
from cfnseg.inference.image_files import Extra
from cfnseg.inference.predictor import Predictor
from cfnseg.inference.settings import Inference
from cfnseg.inference.sources import image_files, infer_files
from cfnseg.models.build import build_model
from cfnseg.models.weights import save_weights
from tests.conftest import ENCODER

LABELS = ShapesDataset("val").labels


@pytest.fixture
def files(tmp_path):
    """A weights file, and an image of 75 x 130 pixels."""
    settings = Model(encoder=ENCODER, encoder_weights=None, width=8, test_scale=1.25)
    torch.manual_seed(0)
    network = build_model(settings, len(LABELS)).eval()
    weights, photo = tmp_path / "w.safetensors", tmp_path / "in" / "photo.jpg"
    save_weights(weights, network, settings, LABELS, {})
    photo.parent.mkdir()
    write_jpeg(photo, np.random.default_rng(0).integers(0, 256, (75, 130, 3), np.uint8))
    return weights, photo


@pytest.mark.parametrize("inference", [Inference(), Inference(window=(64, 64), flip=True)])
def test_they_are_what_the_mask_was_chosen_from(files, tmp_path, monkeypatch, inference):
    weights, photo = files
    monkeypatch.setattr(windows, "STRIP_BYTES", 4 * len(LABELS) * 130 * 16)  # several strips
    out = tmp_path / "out"
    extra = Extra(confidence=True, probabilities=True)
    assert infer_files([photo], weights, out, "cpu", inference, extra=extra) == 0
    chances = np.load(out / "photo_probabilities.npy")
    assert (chances.shape, chances.dtype) == ((len(LABELS), 75, 130), np.float16)
    assert np.abs(chances.astype(np.float32).sum(0) - 1).max() < 2e-3
    predict = Predictor(weights, "cpu", inference)
    whole, result = predict.probabilities(read_image(photo)), predict(read_image(photo))
    assert np.abs(whole - chances).max() < 1e-3
    # two classes may be as likely up to rounding
    assert (whole.argmax(0) == result.mask).mean() > 0.999
    assert np.abs(whole.max(0) - result.confidence).max() < 1e-5
    grey = cv2.imread(str(out / "photo_confidence.png"), cv2.IMREAD_UNCHANGED)
    assert grey.dtype == np.uint8
    assert np.array_equal(grey, np.rint(result.confidence * 255))


def test_they_are_written_when_asked_for_and_are_no_images_later(files, capsys):
    weights, photo = files
    assert infer_files([photo], weights, photo.parent.parent / "in2", "cpu") == 0
    assert len(list((photo.parent.parent / "in2").iterdir())) == 2
    extra = Extra(confidence=True)
    assert infer_files([photo], weights, photo.parent, "cpu", extra=extra) == 0
    assert (photo.parent / "photo_confidence.png").exists()
    assert image_files([photo.parent]) == [photo]
    assert "photo_confidence.png" in capsys.readouterr().out
