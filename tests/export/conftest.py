"""Weights and their exported file, made once."""

from pathlib import Path

import pytest

from cfnseg.export.onnx_file import write_onnx
from cfnseg.export.program import Program
from cfnseg.models.weights import load
from tests.export.samples import LABELS, trained


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A weights file whose images are seen at 1.25 times their size."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    trained(path, test_scale=1.25)
    return path


@pytest.fixture(scope="session")
def any_size(weights, tmp_path_factory) -> Path:
    """The ONNX file of ``weights``, for images of any size."""
    path = tmp_path_factory.mktemp("onnx") / "any.onnx"
    about = {"labels": LABELS.to_dict(), "score": {"data": "shapes"}, "license": "MIT"}
    write_onnx(Program(load(weights).model), path, None, about)
    return path
