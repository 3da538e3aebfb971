"""Inference on images of 1 x 32 to 8192 x 8192; the peak memory is within the estimate."""

import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cfnseg.config import Model
from cfnseg.data.formats.cityscapes import LABELS
from cfnseg.models.build import build_model
from cfnseg.models.weights import save_weights
from tests.conftest import run_tool

# the tool in a process of its own, whose peak memory is then its children's
PEAK = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, "tools/infer.py", *sys.argv[1:]]).returncode
print("PEAK", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def test_kinds_and_sizes(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    rgb = rng.integers(0, 256, (97, 131, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(rgb[..., 0]).save(folder / "gray.png")
    Image.fromarray(np.dstack([rgb, rgb[..., 0]])).save(folder / "rgba.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 256).save(folder / "deep.png")
    Image.fromarray(rgb[:32, :32]).save(folder / "small.png")
    Image.fromarray(rgb[:32, :1]).save(folder / "sliver.png")
    done = run_tool("tools/infer.py", folder, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    sizes = {
        "turned": (97, 131),
        "gray": (131, 97),
        "rgba": (131, 97),
        "deep": (131, 97),
        "small": (32, 32),
        "sliver": (1, 32),
    }
    for name, size in sizes.items():
        assert Image.open(tmp_path / "out" / f"{name}_mask.png").size == size, name


def peak_of(tmp_path, size, *options) -> tuple[float, float]:
    """The tool's peak memory and its estimate before, in GiB, on an image of ``size``."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    Image.fromarray(np.dstack([x // 16, y // 12, (x + y) // 28]).astype(np.uint8)).save(
        tmp_path / "big.jpg"
    )
    done = run_tool(
        "-c", PEAK, tmp_path / "big.jpg", "--out", tmp_path / "out", *options, timeout=3500
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out" / "big_mask.png").size == size[::-1]
    estimate = re.search(r"windows of .* memory up to ([\d.]+) GiB", done.stdout)
    return int(done.stdout.split("PEAK")[1]) / 2**20, float(estimate[1])


@pytest.fixture
def nineteen(tmp_path, request):
    """A weights file of a fresh CFN with 19 classes and the test scale that the test asks for."""
    torch.manual_seed(0)
    settings = Model(encoder_weights=None, test_scale=request.param)
    path = tmp_path / "weights.safetensors"
    save_weights(path, build_model(settings, 19), settings, LABELS, {})
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.timeout(600)
def test_the_memory_estimate_is_an_upper_bound(tmp_path):
    # the shipped weights resize it by 1.5: too large for one window
    peak, estimate = peak_of(tmp_path, (1000, 1500))
    assert peak <= estimate <= 1.35 * peak


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("nineteen", "size", "options"),
    [
        (1.0, (8192, 8192), ()),
        (1.5, (3000, 4000), ()),
        (1.5, (600, 8192), ("--scales", "0.75", "1", "1.25", "--flip")),
    ],
    indirect=["nineteen"],
)
def test_nineteen_classes_under_four_gib(tmp_path, nineteen, size, options):
    """Half an hour on two cores: pytest -m slow tests/inference/test_infer_sizes.py"""
    peak, estimate = peak_of(tmp_path, size, "--weights", nineteen, *options)
    assert peak <= estimate <= 1.35 * peak
    assert estimate < 4


def test_mistakes_are_named_by_their_option(tmp_path):
    for options, message in [
        (("--window", "31", "64"), "--window is (31, 64)"),
        (("--overlap", "128"), "--overlap is 128.0"),
        (("--scales", "1", "0"), "--scales is (1.0, 0.0)"),
    ]:
        done = run_tool("tools/infer.py", tmp_path / "any.jpg", *options)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {message}; expected")
