"""One ONNX file, for any program: read by onnxruntime, by OpenVINO, and without this package."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from cfnseg.export.onnx_file import OPSET, write_onnx
from cfnseg.export.program import Program
from cfnseg.inference.predictor import Predictor
from cfnseg.models.weights import load
from tests.export.samples import LABELS, noise

SIZES = [(97, 131), (64, 96), (240, 322), (33, 300)]

ALONE = """
import sys
for name in ("torch", "cfnseg"):
    sys.modules[name] = None  # importing it fails
import json
import numpy as np
import onnxruntime

model = onnxruntime.InferenceSession(sys.argv[1])
image = np.load(sys.argv[2])  # (H, W, 3) uint8 RGB
mask, confidence, logits = model.run(None, {"image": image[None]})
about = json.loads(model.get_modelmeta().custom_metadata_map["cfnseg"])
names = [name for _, name, _ in about["labels"]["labels"]]
np.save(sys.argv[3], mask[0])
print(names[mask[0, 0, 0]], mask.dtype, confidence.dtype)
"""


def session(path):
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_every_size_and_batch_agrees_with_the_weights(weights, any_size):
    run, predict = session(any_size), Predictor(weights, "cpu")
    for size in SIZES:
        images = np.stack([noise(*size, seed) for seed in range(2)])
        for count in (1, 2):
            mask, confidence, _ = run.run(None, {"image": images[:count]})
            for i in range(count):
                expected = predict(images[i])
                assert (mask[i] == expected.mask).mean() >= 0.9999
                assert np.abs(confidence[i] - expected.confidence).max() < 1e-3


def test_the_file(any_size):
    model = onnx.load(any_size, load_external_data=False)
    onnx.checker.check_model(model)
    assert [x.version for x in model.opset_import if x.domain in ("", "ai.onnx")] == [OPSET]
    assert {x.domain for x in model.opset_import} <= {"", "ai.onnx"}
    assert not any(x.external_data for x in model.graph.initializer)
    run = session(any_size)
    shapes = {x.name: x.shape for x in [*run.get_inputs(), *run.get_outputs()]}
    assert shapes["image"] == ["N", "H", "W", 3]
    assert shapes["mask"] == shapes["confidence"] == ["N", "H", "W"]
    assert shapes["logits"][:2] == ["N", len(LABELS)] and "H" in shapes["logits"][2]
    assert [x.name for x in model.graph.input] == ["image"]
    assert [x.name for x in model.graph.output] == ["mask", "confidence", "logits"]
    about = json.loads({p.key: p.value for p in model.metadata_props}["cfnseg"])
    assert about["labels"] == json.loads(json.dumps(LABELS.to_dict()))
    assert about["license"] == "MIT"


def test_ten_lines_without_torch_and_cfnseg(weights, any_size, tmp_path):
    image = noise(70, 90)
    np.save(tmp_path / "image.npy", image)
    files = [any_size, tmp_path / "image.npy", tmp_path / "mask.npy"]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, files)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    mask = np.load(tmp_path / "mask.npy")
    assert np.array_equal(mask, Predictor(weights, "cpu")(image).mask)
    assert done.stdout.split() == [LABELS.names[mask[0, 0]], "uint8", "float32"]


def test_openvino_reads_it(weights, any_size):
    openvino = pytest.importorskip("openvino")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # it takes bfloat16 by itself where it can
    compiled = openvino.Core().compile_model(str(any_size), "CPU", exact)
    image = noise(97, 131)
    mask = compiled(image[None])[compiled.output("mask")]
    assert (mask[0] == Predictor(weights, "cpu")(image).mask).mean() >= 0.9999


def test_one_size(weights, tmp_path):
    write_onnx(Program(load(weights).model), tmp_path / "one.onnx", (64, 96), {})
    run, image = session(tmp_path / "one.onnx"), noise(64, 96)
    assert run.get_inputs()[0].shape[1:] == [64, 96, 3]
    mask = run.run(["mask"], {"image": image[None]})[0]
    assert np.array_equal(mask[0], Predictor(weights, "cpu")(image).mask)
