"""docs/examples: the application without torch, and the notebook, as a reader runs them."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from cfnseg.data.formats.shapes import ShapesDataset
from cfnseg.inference.onnx_predictor import OnnxPredictor

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
# the file is run where importing these fails
ALONE = """
import runpy, sys
sys.modules.update(torch=None, cfnseg=None)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def application(*words):
    command = [sys.executable, "-c", ALONE, EXAMPLES / "areas.py", *words]
    return subprocess.run([str(x) for x in command], capture_output=True, text=True)


def test_the_application(any_size, tmp_path):
    photos, scenes = tmp_path / "photos", ShapesDataset("val")
    photos.mkdir()
    for k in range(2):
        Image.fromarray(scenes.image(k)[: 97 + k]).save(photos / f"{k}.png")
    (photos / "broken.jpg").write_text("no image")
    result = application(any_size, photos, "--out", tmp_path / "out")
    assert result.returncode == 1 and "broken.jpg: cannot identify" in result.stderr
    assert f"2 photographs: {tmp_path / 'out' / 'areas.csv'}" in result.stdout
    rows = list(csv.DictReader((tmp_path / "out/areas.csv").open()))
    model = OnnxPredictor(any_size, "cpu")
    for k, row in enumerate(rows):
        mask = model.run(scenes.image(k)[: 97 + k])[0]
        shares = np.bincount(mask.ravel(), minlength=len(model.labels)) / mask.size
        assert row["photo"] == f"{k}.png"
        assert [float(row[name]) for name in model.labels.names] == pytest.approx(shares, abs=1e-4)
        overlay = Image.open(tmp_path / "out" / f"{k}.png_overlay.png")
        assert overlay.size == mask.shape[::-1]


def test_the_application_names_a_missing_folder(any_size, tmp_path):
    result = application(any_size, tmp_path / "none")
    assert result.returncode == 2 and f"no such file or folder: {tmp_path}" in result.stderr


def test_the_notebook_runs_and_shows_what_it_did(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    kept = nbformat.read(EXAMPLES / "tour.ipynb", 4)
    notebook = nbformat.read(EXAMPLES / "tour.ipynb", 4)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=280, resources=place).execute()
    text = {"now": printed(notebook), "kept": printed(kept)}
    assert "equal pixels: 100.0" in text["now"] and "mIoU of the weights" in text["now"]
    for line in text["kept"].splitlines():
        if line.startswith("validation loss"):
            assert line in text["now"]
    streams = [output.get("name") for cell in kept.cells for output in cell.get("outputs", [])]
    assert "stderr" not in streams  # warnings name folders of who ran it
    assert any("image/png" in json.dumps(cell.get("outputs", [])) for cell in notebook.cells)


def printed(notebook) -> str:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return "\n".join(output.get("text", "") for output in outputs)
