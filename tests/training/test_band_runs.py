"""A run on images of bands: it learns from them, resumes, and its weights serve every command."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import tifffile
import torch

import cfnseg
from cfnseg.config import Config, Data, Loss, Model, Optim, Train
from cfnseg.errors import UserError
from cfnseg.training.checkpoint import load_checkpoint
from cfnseg.training.run import Run
from tests import processes
from tests.conftest import ENCODER
from tests.data.band_files import GEOTAGS, Arrays, noise, write_data, write_tiff


def settings(root, runs, name="bands", **data):
    return Config(
        name=name,
        runs=str(runs),
        model=Model(encoder=ENCODER, encoder_weights=None, width=8, grid=(1, 1)),
        data=Data(
            **{"name": "folder", "root": str(root), "crop": (64, 64), "workers": 0, "channels": 5}
            | data
        ),
        optim=Optim(name="adamw", lr=5e-3),
        loss=Loss(image=0.0),
        train=Train(batch=4, max_steps=40, val_every=10, pictures=1, accelerator="cpu"),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("bands"), extratags=GEOTAGS, compression="lzw")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return cfnseg.train(settings(data, tmp_path_factory.mktemp("runs")))


class FewerBands(Arrays):
    """The first three bands of a data set, stretched to 8-bit RGB."""

    def __init__(self, whole):
        self.whole, self.names, self.labels = whole, whole.names, whole.labels

    def image(self, index):
        return (self.whole.image(index)[..., :3] >> 8).astype(np.uint8)

    def ids(self, index):
        return self.whole.ids(index)


class Halt(Exception):
    """Ends a run where a kill would."""


def score(run) -> float:
    return cfnseg.load(run / "best.safetensors").score["miou"]


def test_the_band_that_tells_the_classes_is_learnt(run, data, tmp_path):
    assert score(run) > 0.85
    splits = [cfnseg.open_dataset("folder", str(data), s, channels=5) for s in ("train", "val")]
    config = settings(data, tmp_path, "rgb", channels=0)
    rgb = cfnseg.train(config, data=tuple(map(FewerBands, splits)))
    assert score(rgb) < 0.6
    assert "type" not in cfnseg.load(rgb / "best.safetensors").model.encoder.normalisation


def test_the_run_folder_keeps_what_was_counted(run, data):
    train = cfnseg.open_dataset("folder", str(data), "train", channels=5)
    flat = np.concatenate([train.image(i).reshape(-1, 5) for i in range(16)]).astype(float)
    kept = json.loads((run / "bands.json").read_text())
    np.testing.assert_allclose(kept["mean"], flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(kept["std"], flat.std(0), rtol=1e-12)
    saved, bands = (
        load_checkpoint(run / "last.ckpt")["bands"],
        cfnseg.load(run / "best.safetensors").model.encoder.bands,
    )
    assert list(saved["mean"]) == kept["mean"] == list(bands.mean)
    assert saved["type"] == kept["type"] == bands.type == "uint16"


def test_a_resumed_run_ends_in_the_same_bits(run, data, tmp_path, monkeypatch):
    """With the checkpoint's numbers, even where the kept file is gone or wrong."""
    config = settings(data, tmp_path)
    half = replace(config, train=replace(config.train, save_every=20))

    whole = Run._save

    def stop(self):
        whole(self)
        if self.state["step"] == 20:
            raise Halt

    with monkeypatch.context() as patched, pytest.raises(Halt):
        patched.setattr(Run, "_save", stop)
        cfnseg.train(half)
    (tmp_path / "bands" / "bands.json").write_text("{}")
    cfnseg.train(half, resume=True)
    one, two = (load_checkpoint(x / "last.ckpt") for x in (run, tmp_path / "bands"))
    assert one["bands"] == two["bands"]
    assert all(torch.equal(one["model"][k], v) for k, v in two["model"].items())
    with pytest.raises(UserError, match="data.channels"):
        cfnseg.train(replace(half, data=replace(half.data, channels=4)), resume=True)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_a_data_set_of_arrays(tmp_path, kind):
    images = [noise((40, 50, 2), kind, i) for i in range(4)]
    config = settings("", tmp_path, name="own", crop=(32, 32), channels=2)
    config = replace(config, train=replace(config.train, max_steps=2, batch=2))
    folder = cfnseg.train(config, data=(Arrays(images), Arrays(images)))
    predict = cfnseg.Predictor(folder / "best.safetensors", device="cpu")
    assert predict(images[0]).mask.shape == (40, 50)
    assert predict.bands.type == kind


def test_commands_on_such_weights(run, data, tmp_path):
    weights = str(run / "best.safetensors")
    image = data / "images" / "val" / "s0.tif"
    done = processes.run(
        *("cfnseg/__main__.py", "infer", str(image), "--weights", weights, "--out", str(tmp_path)),
        *("--explain", "--save-confidence", "--scales", "0.8", "--window", "64", "64"),
    )
    assert done.returncode == 0, done.stderr
    predicted = tifffile.imread(tmp_path / "s0_mask.tif")
    assert predicted.shape == (64, 80) and set(np.unique(predicted)) <= {0, 1}
    done = processes.run(
        "cfnseg/__main__.py", "eval", weights, "--root", str(data), "--out", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["miou"] == pytest.approx(score(run), abs=1e-4)


def test_what_takes_rgb_alone_says_so(run, data, tmp_path):
    weights = str(run / "best.safetensors")
    mask = str(data / "labels" / "val" / "s0.png")
    for command in (["demo", weights], ["bench", "deploy", weights]):
        done = processes.run("cfnseg/__main__.py", *command)
        assert done.returncode == 2 and "8-bit RGB" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    done = processes.run(
        "cfnseg/__main__.py", "infer", mask, "--weights", weights, "--out", str(tmp_path)
    )
    assert done.returncode == 1
    assert "it has 3 bands of uint8, and the weights take 5 bands of uint16" in done.stderr


def test_a_georeference_stays(run, data, tmp_path):
    """rasterio reads image and mask at the same place."""
    write_tiff(
        tmp_path / "rgb.tif", noise((64, 80, 3), "uint8"), photometric="rgb", extratags=GEOTAGS
    )
    for image, weights in (
        (data / "images" / "val" / "s1.tif", ["--weights", str(run / "best.safetensors")]),
        (tmp_path / "rgb.tif", []),
    ):
        done = processes.run(
            *("cfnseg/__main__.py", "infer", str(image), *weights, "--out", str(tmp_path / "out"))
        )
        assert done.returncode == 0, done.stderr
        with (
            rasterio.open(image) as own,
            rasterio.open(tmp_path / "out" / f"{image.stem}_mask.tif") as made,
        ):
            assert made.crs == own.crs and made.crs.to_epsg() == 32633
            assert made.transform == own.transform and made.transform.a == 10
            assert made.dtypes == ("uint8",) and made.shape == own.shape
            assert made.colormap(1)[1][:3] != made.colormap(1)[2][:3]


def test_settings_that_no_run_could_use(data, tmp_path):
    config = settings(data, tmp_path)
    with pytest.raises(UserError, match="data.channels is 5; expected 0"):
        images = replace(config.model, level="image")
        cfnseg.config.check(
            replace(config, model=images, data=replace(config.data, name="cifar10"))
        )
    with pytest.raises(UserError, match="not one of your own"):
        cfnseg.train(config, model=cfnseg.CFN(ENCODER, 2, width=8))
    broken = shutil.copytree(data, tmp_path / "broken")
    path = broken / "images" / "train" / "s3.tif"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"s3\.tif: not a readable image"):
        cfnseg.train(settings(broken, tmp_path))
