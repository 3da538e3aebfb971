"""Any image in, a mask of exactly its size out; windows, scales and mirroring on request."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cfnseg.config import Model
from cfnseg.data.dataset import open_dataset, read_sample
from cfnseg.data.formats.camvid import LABELS
from cfnseg.evaluation.segmentation import evaluate
from cfnseg.inference.predictor import Predictor, segment
from cfnseg.inference.settings import Inference
from cfnseg.metrics.confusion import confusion_matrix
from cfnseg.models.build import build_model
from cfnseg.models.weights import Weights
from tests.conftest import ENCODER

# with random weights this head's scores are smooth, so that views of an image agree
SMOOTH = {"fusion_norm": "none", "strides": (4, 8, 16, 32), **Model.BEFORE}
SETTINGS = Model(encoder=ENCODER, encoder_weights=None, width=8, grid=(2, 3), **SMOOTH)


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    model = build_model(SETTINGS, 11).eval()
    model.pixel.predictors[0][
        1
    ].weight.data *= 100  # a fresh net is unsure of everything; this one is not
    return Predictor(Weights(model, SETTINGS, LABELS), "cpu")


def photo(height, width):
    y, x = np.mgrid[0:height, 0:width]
    return np.dstack([x * 255 // width, y * 255 // height, (x // 16 + y // 16) % 2 * 255]).astype(
        np.uint8
    )


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


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((8, 8), np.uint8), r"\(8, 8\) uint8"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\)"),
        (np.zeros((8, 8, 1), np.uint8), "1"),
        (np.zeros((8, 8, 3)), "float64"),
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8, 3), np.uint16), "uint16"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        (np.zeros((8, 8, 3), bool), "bool"),
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\)"),
        (np.zeros((0, 50, 3), np.uint8), r"\(0, 50, 3\)"),
        (np.zeros((50, 0, 3), np.uint8), r"\(50, 0, 3\)"),
        (np.uint8(3), "uint8"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"\(1, 8, 8, 3\)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), "torch.Tensor"),
        ("a.png", "the path 'a.png'; cfnseg.data.files.read_image reads it"),
        (Path("a.png"), "the path"),
        (None, "NoneType"),
        (3, "int"),
        ([[[1, 2, 3]]], "list"),
        (b"x", "bytes"),
        (Image.new("I;16", (8, 8)), "mode I;16"),
        (Image.new("F", (8, 8)), "mode F"),
    ],
)
def test_what_is_no_image_is_refused(predictor, image, message):
    with pytest.raises(
        ValueError,
        match=rf"image: expected an array \(H, W, 3\) uint8 RGB .* or a PIL image, got .*{message}",
    ):
        predictor(image)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK"])
def test_a_pil_image_is_seen_as_rgb(predictor, mode):
    picture = Image.fromarray(photo(40, 50)).convert(mode)
    assert np.array_equal(
        predictor(picture).confidence, predictor(np.array(picture.convert("RGB"))).confidence
    )


def test_a_pil_image_is_seen_upright(predictor):
    picture = Image.fromarray(photo(40, 50))
    picture.getexif()[0x0112] = 6
    assert predictor(picture).mask.shape == (50, 40)


@pytest.mark.parametrize(
    "array",
    [
        photo(40, 50)[::-1],
        np.asfortranarray(photo(40, 50)),
        np.broadcast_to(np.uint8(9), (40, 50, 3)),
    ],
)
def test_arrays_in_any_order_of_memory(predictor, array):
    assert np.array_equal(predictor(array).confidence, predictor(array.copy()).confidence)


def test_windows_as_large_as_the_image_are_the_image(predictor):
    whole = predictor(photo(97, 131))
    same = Predictor(Weights(predictor.model, SETTINGS, LABELS), "cpu", Inference((97, 131)))(
        photo(97, 131)
    )
    assert np.array_equal(whole.mask, same.mask)
    assert np.array_equal(whole.confidence, same.confidence)
    assert whole.present == same.present


@pytest.mark.parametrize(
    "inference",
    [
        Inference((64, 96), 0.5, 3),
        Inference(scales=(0.75, 1.0, 1.25), flip=True),
        Inference((64, 64), scales=(0.5, 2.0), flip=True),
    ],
)
@pytest.mark.parametrize("size", [(97, 131), (20, 140), (150, 31)])
def test_every_look_gives_a_whole_answer(predictor, inference, size):
    image = torch.from_numpy(photo(*size)).permute(2, 0, 1)
    plain = segment(predictor.model, image, confidence=True)
    result = segment(predictor.model, image, inference, confidence=True)
    assert result.mask.shape == result.confidence.shape == size
    assert (result.mask == plain.mask).float().mean() > 0.85  # chance would be below one half
    assert abs(result.confidence - plain.confidence).mean() < 0.2
    assert abs(result.presence - plain.presence).max() < 0.05


def test_half_precision_and_compilation_give_nearly_the_same(predictor, monkeypatch):
    whole, weights = predictor(photo(97, 131)), Weights(predictor.model, SETTINGS, LABELS)
    half = Predictor(weights, "cpu", Inference(precision="bf16-mixed"))(photo(97, 131))
    assert (half.mask == whole.mask).mean() > 0.95
    assert (
        0 < abs(half.confidence - whole.confidence).mean() < 0.05
    )  # it was half precision, and close
    monkeypatch.setattr(
        torch, "compile", functools.partial(torch.compile, backend="eager")
    )  # traced, without a C++ compiler
    compiled = Predictor(weights, "cpu", compile=True)
    assert compiled.model is not predictor.model
    assert np.array_equal(compiled(photo(97, 131)).mask, whole.mask)


def test_the_models_scale_is_a_factor_on_those_asked_for(predictor):
    image = torch.from_numpy(photo(97, 131)).permute(2, 0, 1)
    twice = segment(predictor.model, image, Inference(scales=(1.5,)), confidence=True)
    predictor.model.test_scale = 1.5
    try:
        assert torch.equal(
            segment(predictor.model, image, confidence=True).confidence, twice.confidence
        )
    finally:
        predictor.model.test_scale = 1.0


def test_the_loss_is_that_of_the_confidences(predictor):
    """With the prediction as truth, cross-entropy is -log(confidence); ignored pixels add 0."""
    image = torch.from_numpy(photo(97, 131)).permute(2, 0, 1)
    result = segment(predictor.model, image, confidence=True)
    truth = result.mask.clone()
    truth[:50] = 255
    loss = segment(predictor.model, image, truth=truth).loss
    assert loss == pytest.approx(-float(result.confidence[50:].double().log().sum()), rel=1e-4)


def test_evaluation_sees_what_inference_sees(folder_data):
    data = open_dataset("folder", str(folder_data), "val")
    classes = len(data.labels)
    torch.manual_seed(0)
    model = build_model(SETTINGS, classes).eval()
    inference = Inference((32, 64), 0.5, batch=2, scales=(0.75, 1.25), flip=True)
    result = evaluate(model, data, workers=0, inference=inference)
    infer = Predictor(Weights(model, SETTINGS, data.labels), "cpu", inference)
    pairs = [read_sample(data, index) for index in range(len(data.names))]
    assert np.array_equal(
        result.confusion,
        sum(confusion_matrix(truth, infer(image).mask, classes) for image, truth in pairs),
    )
    assert not np.array_equal(result.confusion, evaluate(model, data, workers=0).confusion)
