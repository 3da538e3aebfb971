"""The command: files, what it prints about them, and what it refuses."""

import re
import subprocess
import sys

import numpy as np
import pytest

from cfnseg.errors import UserError
from cfnseg.export.exporting import export_weights
from cfnseg.export.latency import time_ways
from cfnseg.inference.onnx_predictor import OnnxPredictor
from cfnseg.inference.predictor import Predictor
from cfnseg.inference.settings import Inference
from cfnseg.workflows import score_weights
from tests.export.samples import noise, trained

TORCH = """
import sys
sys.modules["cfnseg"] = None
import numpy as np, torch
program = torch.export.load(sys.argv[1]).module()
image = torch.from_numpy(np.load(sys.argv[2]))
np.save(sys.argv[3], program(image[None])[0][0].numpy())
"""


def test_onnx_says_how_it_agrees(weights, tmp_path, capsys):
    out = tmp_path / "m.onnx"
    assert export_weights(weights, out, size=(64, 96), images=3) == out
    printed = capsys.readouterr().out
    assert "3 images: 100.0000% of the pixels equal" in printed
    own, file = re.search(r"mIoU of the weights (\S+), of the file (\S+)", printed).groups()
    assert own == file
    assert re.search(r"64 x 96, CPU, 1 threads: the weights \d+ ms, the file \d+ ms", printed)


def test_a_torch_program_needs_no_cfnseg(weights, tmp_path, capsys):
    out = export_weights(weights, tmp_path / "m.pt2", "torch", images=2)
    assert "2 images: 100.0000% of the pixels equal" in capsys.readouterr().out
    image = noise(70, 90)
    np.save(tmp_path / "i.npy", image)
    files = [out, tmp_path / "i.npy", tmp_path / "o.npy"]
    subprocess.run([sys.executable, "-c", TORCH, *map(str, files)], check=True)
    assert np.array_equal(np.load(tmp_path / "o.npy"), Predictor(weights, "cpu")(image).mask)


def test_int8_is_smaller_and_near(weights, tmp_path, capsys):
    out = export_weights(weights, tmp_path / "m.onnx", int8=True, size=(64, 96), images=4)
    equal = float(re.search(r"([\d.]+)% of the pixels", capsys.readouterr().out)[1])
    assert 80 < equal < 100
    import onnx

    kinds = {node.op_type for node in onnx.load(out).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    export_weights(weights, tmp_path / "float.onnx", size=(64, 96), images=1)
    assert out.stat().st_size < (tmp_path / "float.onnx").stat().st_size


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"int8": True, "kind": "torch"}, "--int8 is for --format onnx"),
        ({"int8": True, "half": True}, "without --half"),
        ({"out": "m.pt"}, "ends with .onnx"),
        ({"dataset": "vocc"}, "unknown"),
    ],
)
def test_refused(weights, tmp_path, settings, message):
    settings = settings | ({"out": tmp_path / settings["out"]} if "out" in settings else {})
    with pytest.raises(UserError, match=message) as error:
        export_weights(weights, **settings)
    assert error.value.code == 2


def test_missing_package(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r'pip install "cfnseg\[export\]"'):
        export_weights(weights, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_classification_model(tmp_path):
    path = tmp_path / "c.safetensors"
    trained(path)
    with pytest.raises(UserError, match="no weights file"):
        export_weights(tmp_path / "none.safetensors")


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_full_disk_is_one_line(kind, weights, full_disk):
    out = full_disk / {"onnx": "m.onnx", "torch": "m.pt2"}[kind]
    (full_disk / "filler").write_bytes(bytes(60_000))
    with pytest.raises(UserError, match="could not be written .no space left on the disk"):
        export_weights(weights, out, kind, size=(64, 96), images=1)
    assert [p.name for p in full_disk.iterdir()] == ["filler"]


def test_the_report_of_a_file_is_that_of_its_weights(weights, any_size, tmp_path):
    where = {"dataset": "shapes", "root": "", "split": "val", "workers": 0, "pictures": False}
    own = score_weights(weights, out=tmp_path / "a", device="cpu", **where)
    file = score_weights(any_size, out=tmp_path / "b", device="cpu", **where)
    assert abs(own["miou"] - file["miou"]) < 1e-4
    assert abs(own["loss"] - file["loss"]) < 1e-3
    assert abs(own["calibration"]["ece"] - file["calibration"]["ece"]) < 1e-4


def test_ways_are_timed_against_the_first(weights, tmp_path):
    text = time_ways(weights, (64, 96), 2, compiled=False, out=tmp_path)
    assert (tmp_path / "deploy.md").read_text() == text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    ways = [row[0].removeprefix("| ").split()[0] for row in rows]
    assert ways == ["torch,", "torch,", "onnxruntime", "onnxruntime,", "OpenVINO,"]
    assert rows[0][2] == "1.00 |"
    assert all(float(row[1]) > 0 for row in rows)


def test_predictor_of_a_file(weights, any_size, tmp_path):
    predict = OnnxPredictor(any_size, "cpu")
    result = predict(noise(61, 83))
    assert np.array_equal(result.mask, Predictor(weights, "cpu")(noise(61, 83)).mask)
    assert result.present == {} and predict.labels.names[0] == "sky"
    with pytest.raises(UserError, match="windows, views and precision"):
        OnnxPredictor(any_size, "cpu", Inference(flip=True))
    (tmp_path / "junk.onnx").write_bytes(b"no model")
    for path, message in (
        (tmp_path / "junk.onnx", "no model that"),
        (tmp_path / "x.onnx", "no file"),
    ):
        with pytest.raises(UserError, match=message):
            OnnxPredictor(path)
