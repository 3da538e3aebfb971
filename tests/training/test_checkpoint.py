"""Our files describe themselves and survive a full disk; nothing in a foreign file runs."""

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cfnseg.config import Model
from cfnseg.data.formats import voc
from cfnseg.data.formats.camvid import LABELS
from cfnseg.errors import UserError
from cfnseg.models.build import build_model
from cfnseg.models.weights import check_labels, load, save_weights
from cfnseg.training.checkpoint import load_checkpoint, save_checkpoint
from tests.conftest import ENCODER

SETTINGS = Model(encoder=ENCODER, encoder_weights=None, width=8, grid=(2, 3))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(SETTINGS, len(LABELS)).eval()


@pytest.mark.parametrize("half, tolerance", [(False, 0.0), (True, 2e-3)])
def test_weights_rebuild_the_model_from_the_file_alone(tmp_path, model, half, tolerance):
    save_weights(tmp_path / "w.safetensors", model, SETTINGS, LABELS, {"miou": 0.5}, half)
    loaded = load(tmp_path / "w.safetensors")
    assert loaded.settings == SETTINGS
    assert loaded.labels == LABELS
    assert loaded.score == {"miou": 0.5}
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(
            loaded.model(images).pixel, model(images).pixel, rtol=0, atol=tolerance
        )


class Hostile:
    def __init__(self, flag):
        self.flag = str(flag)

    def __reduce__(self):
        return (open, (self.flag, "w"))


@pytest.mark.parametrize("reader", [load, load_checkpoint])
def test_a_hostile_pickle_does_not_run(tmp_path, reader):
    flag = tmp_path / "ran"
    for name, write in (
        ("a", lambda p: p.write_bytes(pickle.dumps(Hostile(flag)))),
        ("b", lambda p: torch.save(Hostile(flag), p)),
    ):
        write(tmp_path / name)
        with pytest.raises(UserError, match="not loaded"):
            reader(tmp_path / name)
    assert not flag.exists()


@pytest.mark.parametrize("cut", [0, 10, 2000])
def test_corrupt_files(tmp_path, model, cut):
    save_weights(tmp_path / "w.safetensors", model, SETTINGS, LABELS, {})
    save_checkpoint(tmp_path / "c.ckpt", {"x": torch.zeros(900)})
    for path, reader in (
        (tmp_path / "w.safetensors", load),
        (tmp_path / "c.ckpt", load_checkpoint),
    ):
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(UserError, match="corrupt"):
            reader(path)


def test_files_that_are_not_ours(tmp_path, model):
    with pytest.raises(UserError, match="no weights file"):
        load(tmp_path / "nowhere.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="no cfnseg header"):
        load(tmp_path / "x.safetensors")
    header = {
        "model": {"encoder": ENCODER, "width": 8},
        "labels": LABELS.to_dict(),
        "normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    save_file({"x": torch.zeros(1)}, tmp_path / "y.safetensors", {"cfnseg": json.dumps(header)})
    with pytest.raises(UserError, match="do not fit"):
        load(tmp_path / "y.safetensors")
    header["model"]["colour"] = "blue"
    save_file({"x": torch.zeros(1)}, tmp_path / "z.safetensors", {"cfnseg": json.dumps(header)})
    with pytest.raises(UserError, match=r"unknown Model setting colour.*newer cfnseg"):
        load(tmp_path / "z.safetensors")


@pytest.mark.parametrize(
    "part, value",
    [
        ("model", {"encoder": 5}),
        ("model", {"encoder": "hf-hub:a/b"}),
        ("labels", 3),
        ("normalisation", {}),
        ("labels", {"labels": [[0, "a", [0, 0, 0]]], "ignore": [999], "void": 0}),
    ],
)
def test_headers_that_somebody_wrote(tmp_path, model, part, value):
    path = tmp_path / "w.safetensors"
    save_weights(path, model, SETTINGS, LABELS, {})
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["cfnseg"])
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {"cfnseg": json.dumps(header | {part: value})})
    with pytest.raises(UserError):
        load(path)


def test_normalisation_is_the_files(tmp_path, model):
    model.encoder.mean.fill_(0.25)
    save_weights(tmp_path / "w.safetensors", model, SETTINGS, LABELS, {})
    assert load(tmp_path / "w.safetensors").model.encoder.mean.flatten().tolist() == [0.25] * 3


def test_weights_of_other_classes(tmp_path, model):
    save_weights(tmp_path / "w.safetensors", model, SETTINGS, LABELS, {})
    loaded = load(tmp_path / "w.safetensors")
    check_labels(loaded.labels, LABELS, "w", "camvid")
    with pytest.raises(
        UserError,
        match="has 11 classes, voc val has 21: class 0 is 'sky' here and 'background' there",
    ):
        check_labels(loaded.labels, voc.LABELS, "w.safetensors", "voc val")


def test_a_full_disk_for_real(tmp_path):
    """torch.save and safetensors onto a file system of 64 KB, where one can be mounted."""
    import subprocess

    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    ).returncode:
        pytest.skip("no permission to mount a small file system")
    try:
        save_checkpoint(small / "c.ckpt", {"x": torch.zeros(10)})
        with pytest.raises(UserError, match="intact"):
            save_checkpoint(small / "c.ckpt", {"x": torch.zeros(100_000)})
        assert load_checkpoint(small / "c.ckpt")["x"].shape == (10,)
        model = build_model(SETTINGS, len(LABELS))
        with pytest.raises(UserError, match="could not be written"):
            save_weights(small / "w.safetensors", model, SETTINGS, LABELS, {})
        assert [p.name for p in small.iterdir()] == ["c.ckpt"]
    finally:
        subprocess.run(["umount", str(small)], check=True)
