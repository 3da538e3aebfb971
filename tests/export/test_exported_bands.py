"""Exported models of bands say what their weights say."""

import json

import numpy as np
import pytest
import torch

import cfnseg
from cfnseg.config import Model
from cfnseg.errors import UserError
from cfnseg.export.exporting import export_weights
from cfnseg.inference.onnx_predictor import OnnxPredictor
from cfnseg.models.build import build_model
from cfnseg.models.weights import save_weights
from cfnseg.workflows import score_weights
from tests.conftest import ENCODER
from tests.data.band_files import noise, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("bands"), 4)


@pytest.fixture
def weights(data, tmp_path):
    train = cfnseg.open_dataset("folder", str(data), "train", channels=5)
    from cfnseg.data.band_statistics import count_bands

    settings = Model(encoder=ENCODER, encoder_weights=None, width=8, test_scale=0.75)
    torch.manual_seed(0)
    model = build_model(settings, 2, bands=count_bands(train, 5, 0)).eval()
    score = {"data": "folder", "split": "val", "miou": 0.5}
    save_weights(tmp_path / "w.safetensors", model, settings, train.labels, score)
    return tmp_path / "w.safetensors"


def test_the_onnx_file_agrees(weights, data, capsys):
    path = export_weights(weights, root=str(data), images=4)
    assert "4 images: 100.0000% of the pixels equal" in capsys.readouterr().out
    predict, exported = cfnseg.Predictor(weights, device="cpu"), OnnxPredictor(path, "cpu")
    assert exported.bands == predict.bands
    for size in ((50, 70), (64, 80)):
        image = noise((*size, 5), "uint16")
        own, other = predict(image), exported(image)
        assert (own.mask == other.mask).mean() > 0.999
        np.testing.assert_allclose(own.confidence, other.confidence, atol=1e-3)
    with pytest.raises(ValueError, match=r"\(H, W, 5\) uint16"):
        exported(noise((50, 70, 3), "uint8"))
    for file in (path, weights):
        score_weights(file, "", str(data), "", file.parent / file.suffix[1:], workers=0)
    one, two = (
        json.loads((path.parent / x / "report.json").read_text()) for x in ("onnx", "safetensors")
    )
    assert one["miou"] == pytest.approx(two["miou"], abs=1e-3)


def test_the_torch_program_agrees(weights, data, capsys):
    export_weights(weights, kind="torch", root=str(data), images=2, size=(64, 80))
    assert "2 images: 100.0000% of the pixels equal" in capsys.readouterr().out


def test_half_is_refused(weights, data):
    with pytest.raises(UserError, match="--half holds no values of 5 bands of uint16"):
        export_weights(weights, root=str(data), half=True)
