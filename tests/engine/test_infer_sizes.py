"""Inference on images of any size and kind from 32 x 32 to 4000 x 3000, and what the largest costs."""

import sys

import numpy as np
import pytest
from PIL import Image

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
    sizes = {"turned": (97, 131), "gray": (131, 97), "rgba": (131, 97), "deep": (131, 97), "small": (32, 32), "sliver": (1, 32)}
    for name, size in sizes.items():
        assert Image.open(tmp_path / "out" / f"{name}_mask.png").size == size, name


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.timeout(600)
def test_twelve_megapixels_under_four_gib(tmp_path):
    y, x = np.mgrid[0:3000, 0:4000]
    Image.fromarray(np.dstack([x // 16, y // 12, (x + y) // 28]).astype(np.uint8)).save(tmp_path / "big.jpg")
    done = run_tool("-c", PEAK, tmp_path / "big.jpg", "--out", tmp_path / "out", timeout=580)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out" / "big_mask.png").size == (4000, 3000)
    peak = int(done.stdout.split("PEAK")[1]) * 1024
    assert peak < 4 * 2**30, f"{peak / 2**30:.2f} GiB"
