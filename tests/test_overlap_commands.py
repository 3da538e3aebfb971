"""What the commands make of sigmoid outputs and overlapping labels: files, or one line."""

import cv2
import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from cfnseg.config import Config, Data, Model, Train
from cfnseg.data.files import read_image
from cfnseg.demo.answers import Answers
from cfnseg.doctor import examine_data
from cfnseg.drawing import colored, error_layer, layers_overlay, shrink
from cfnseg.errors import UserError
from cfnseg.export.exporting import export_weights
from cfnseg.export.hub import write_page
from cfnseg.export.latency import time_ways
from cfnseg.inference.image_files import Extra
from cfnseg.inference.predictor import Predictor
from cfnseg.inference.sources import infer_files
from cfnseg.models.build import build_model
from cfnseg.models.weights import save_weights
from cfnseg.plan import write_plan
from cfnseg.report.comparison import compare
from cfnseg.workflows import score_weights, train
from tests.conftest import ENCODER
from tests.data.band_files import GEOTAGS, write_tiff
from tests.overlapping import LABELS, scene, write_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("overlap") / "data", {"train": 3, "val": 2})


@pytest.fixture(scope="module")
def weights(data):
    torch.manual_seed(0)
    settings = Model(encoder=ENCODER, encoder_weights=None, width=8, output="sigmoid")
    path = data.parent / "best.safetensors"
    score = {"data": "folder", "split": "train, held out s0*", "thresholds": [0.45, 0.5]}
    save_weights(path, build_model(settings, 2), settings, LABELS, score)
    return path


def test_infer_writes_a_mask_for_each_class(data, weights, tmp_path, capsys):
    extra = Extra(confidence=True, probabilities=True)
    images, out = data / "images" / "val", tmp_path / "out"
    assert infer_files([images], weights, out, "cpu", extra=extra) == 0
    assert f"{out}/s000/ (stripe.png, disc.png), s000_overlay.jpg" in capsys.readouterr().out
    predict, image = Predictor(weights, "cpu"), read_image(images / "s000.png")
    expected = predict(image)
    for mask, name in zip(expected.mask, LABELS.names):
        with Image.open(out / "s000" / f"{name}.png") as written:
            assert written.mode == "L"
            assert (np.asarray(written) == 255 * mask).all()
    chances = np.load(out / "s000_probabilities.npy")
    assert chances == pytest.approx(predict.probabilities(image), abs=1e-3)
    assert (
        cv2.imread(str(out / "s000_confidence.png")).shape
        == cv2.imread(str(out / "s000_overlay.jpg")).shape
        == (48, 64, 3)
    )


def test_masks_keep_the_georeference_of_bands(tmp_path):
    """Sigmoid outputs of bands: trained, scored, and written where the image lies."""
    folder = write_folder(tmp_path / "data", {"train": 4, "val": 2})
    for path in sorted(folder.glob("images/*/*.png")):
        rgb = np.asarray(Image.open(path)).astype(np.uint16) * 200
        write_tiff(path.with_suffix(".tif"), np.dstack([rgb, rgb[..., :1]]), extratags=GEOTAGS)
        path.unlink()
    config = Config(
        model=Model(encoder=ENCODER, encoder_weights=None, width=8, output="sigmoid"),
        data=Data(name="folder", root=str(folder), crop=(48, 64), channels=4, workers=0, rare=0.5),
        train=Train(max_steps=2, batch=2, accelerator="cpu", pictures=1),
        name="run",
        runs=str(tmp_path),
    )
    weights = train(config) / "best.safetensors"
    report = score_weights(weights, "", str(folder), "val", tmp_path / "report", 0, "cpu")
    assert 0 <= report["miou"] <= 1
    image = folder / "images/val/s000.tif"
    assert infer_files([image], weights, tmp_path / "out", "cpu") == 0
    expected = Predictor(weights, "cpu")(read_image(image, 4)).mask
    for mask, name in zip(expected, LABELS.names):
        with rasterio.open(image) as own, rasterio.open(tmp_path / f"out/s000/{name}.tif") as made:
            assert made.crs == own.crs and made.transform == own.transform
            assert (made.read(1) == 255 * mask).all()


def test_the_written_masks_are_a_data_set(data, weights, tmp_path):
    """What infer writes is what the folder data set reads, so a model's masks can be corrected."""
    infer_files([data / "images" / "val"], weights, tmp_path / "labels" / "val", "cpu")
    (tmp_path / "images").symlink_to(data / "images")
    (tmp_path / "classes.txt").write_text((data / "classes.txt").read_text())
    report = score_weights(weights, "", str(tmp_path), "val", tmp_path / "report", 0, "cpu")
    assert report["miou"] == 1 and report["boundary_miou"] == 1 and report["image_dice"] == 1
    assert report["thresholds_tuned_on"] == "folder train, held out s0*"
    assert not report["thresholds_tuned_here"]


def test_overlapping_classes_stay_visible():
    image, layers = np.full((60, 80, 3), 100, np.uint8), np.zeros((60, 80, 2), np.uint8)
    layers[10:40, 10:50, 0] = layers[20:50, 30:70, 1] = 1
    layers[:5] = 255
    mixed = colored(layers, LABELS)
    one, two = (np.array(label.color) for label in LABELS.labels)
    assert (mixed[12, 12] == one).all() and (mixed[48, 60] == two).all()
    assert (mixed[30, 40] == (one + two) // 2).all() and (mixed[0, 0] == 255).all()
    drawn = layers_overlay(image, layers, LABELS)
    assert (drawn[55, 5] == 100).all() and (drawn[0, 0] == 100).all()  # no class, ignored
    assert (drawn[20, 40] == two).all() and (drawn[30, 49] == one).all()  # outlines in the overlap
    wrong = layers.copy()
    wrong[30, 40, 1] = 0
    assert error_layer(layers, wrong) != error_layer(layers, layers)
    assert shrink(layers[..., :1], 20, ids=True).shape == (15, 20, 1)
    assert shrink(np.zeros((60, 80, 9), np.uint8), 20, ids=True).shape == (15, 20, 9)


def refusals(data, weights, tmp_path):
    image = data / "images" / "val" / "s000.png"
    settings = Data(name="folder", root=str(data))
    softmax = Config(data=settings, name="doctor", runs=str(tmp_path))
    report = score_weights(weights, "", str(data), "val", tmp_path / "report", 0, "cpu")
    assert report["output"] == "sigmoid"
    return {
        "explain": lambda: infer_files([image], weights, tmp_path, "cpu", extra=Extra(True)),
        "export": lambda: export_weights(weights),
        "push": lambda: write_page(tmp_path / "page", weights, "user/name"),
        "bench": lambda: time_ways(weights, (64, 64), 1, False, tmp_path),
        "demo": lambda: Answers(weights, "cpu"),
        "compare": lambda: compare(tmp_path / "report", tmp_path / "report"),
        "doctor": lambda: examine_data(softmax),
        "plan": lambda: write_plan(str(data), "folder", 1.0, "", tmp_path / "plan.py"),
    }


@pytest.mark.parametrize(
    "what, message",
    [
        ("explain", "has sigmoid outputs, whose classes may overlap; --explain takes softmax"),
        ("export", "has sigmoid outputs.*export takes softmax"),
        ("push", "has sigmoid outputs.*a model card takes softmax"),
        ("bench", "has sigmoid outputs"),
        ("demo", "has sigmoid outputs.*the demo takes softmax"),
        ("compare", "report.json is of sigmoid outputs.*compare takes softmax"),
        ("doctor", "labels/train/s000 is a folder with a mask for each class.*doctor does not"),
        ("plan", "labels/train/s000 is a folder with a mask for each class"),
    ],
)
def test_what_does_not_take_them_says_so_in_one_line(data, weights, tmp_path, what, message):
    with pytest.raises(UserError, match=message) as caught:
        refusals(data, weights, tmp_path)[what]()
    assert "\n" not in str(caught.value)


def test_the_doctor_takes_id_0_without_a_class(tmp_path):
    for split, first in (("train", 0), ("val", 50)):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for i in range(6):
            image, layers = scene(first + i)
            Image.fromarray(image).save(tmp_path / "images" / split / f"s{i}.png")
            Image.fromarray(layers[..., 1]).save(tmp_path / "labels" / split / f"s{i}.png")
    (tmp_path / "classes.txt").write_text("1 disc 40 90 230\n")
    settings = Data(name="folder", root=str(tmp_path))
    config = Config(data=settings, name="doctor", runs=str(tmp_path / "runs"))
    assert examine_data(config)["counts"]["error"] == 1  # for softmax 0 is unknown
    sigmoid = Config(Model(output="sigmoid"), settings, name="doctor", runs=str(tmp_path / "runs"))
    assert examine_data(sigmoid)["counts"]["error"] == 0
    with pytest.raises(UserError, match="--fix takes a class or void for id 0"):
        examine_data(sigmoid, fix=tmp_path / "fixed")
