"""Shared fixtures: a small folder data set, a small model, and real data where it is at hand."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

# the models here are tiny; the tools that tests start inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from PIL import Image

from cfnseg.config import Config, Data, Model, Optim, Train
from cfnseg.data.formats import shapes
from tests import browsing, processes

REPO = Path(__file__).parents[1]
# two workers end together only if no long test starts late; the order is the order of starting
LONGEST = (
    "tests/ops/test_compile.py::test_compile_every_flag",
    "tests/inference/test_infer_sizes.py::test_the_memory",
    "tests/training/test_hosts.py",
    "tests/training/test_resume.py",
    "tests/training/test_processes.py",
    "tests/training/test_loss.py::test_two_processes",
    "tests/ops/test_kernels.py::test_in_the_interpreter",
    "tests/ops/test_proof.py",
    "tests/lab/test_ablation.py::test_ctrl_c",
    "tests/test_wheel.py",
    "tests/models/test_traced.py",
    "tests/doctor/test_tool.py",
    "tests/data/download/test_official.py::test_the_tool",
)
ENCODER = "test_efficientnet"  # timm's own test backbone: five stages, 0.4 M parameters


def pytest_collection_modifyitems(items):
    """Put the longest tests first."""
    items.sort(key=lambda item: [not item.nodeid.startswith(prefix) for prefix in LONGEST])


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)  # the models here are tiny: a second thread waits more than it works


@pytest.fixture(scope="session")
def folder_data(tmp_path_factory) -> Path:
    """A folder data set: 14 training and 5 validation scenes of 64 x 80, masks as palette PNGs."""
    root = tmp_path_factory.mktemp("folder")
    (root / "classes.txt").write_text(
        "".join(f"{i} {n} {r} {g} {b}\n" for i, n, (r, g, b) in shapes.CLASSES)
    )
    palette = np.full((256, 3), 255, np.uint8)
    for i, _, rgb in shapes.CLASSES:
        palette[i] = rgb
    for split, count, first in (("train", 14, 0), ("val", 5, 500)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            image, mask = shapes.render(first + i, (64, 80))
            Image.fromarray(image).save(root / "images" / split / f"s{i:02d}.png")
            picture = Image.fromarray(mask, mode="P")
            picture.putpalette(palette.tobytes())
            picture.save(root / "labels" / split / f"s{i:02d}.png")
    return root


@pytest.fixture
def tiny(folder_data, tmp_path) -> Config:
    """A run of seconds: the test backbone on the folder data set, in a fresh runs folder."""
    return Config(
        model=Model(encoder=ENCODER, encoder_weights=None, width=16, grid=(2, 3)),
        data=Data(name="folder", root=str(folder_data), crop=(64, 64), workers=0),
        optim=Optim(name="adamw", lr=3e-3, weight_decay=0.01, ema=0.9),
        train=Train(epochs=2, batch=4, accelerator="cpu", save_every=2, pictures=2),
        name="tiny",
        runs=str(tmp_path / "runs"),
    )


def changed(config: Config, section: str, **fields) -> Config:
    """The config with some fields of a section replaced."""
    return replace(config, **{section: replace(getattr(config, section), **fields)})


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with CamVid and the VOC sample, named by CFNSEG_DATA."""
    folder = os.environ.get("CFNSEG_DATA")
    if not folder:
        pytest.skip("CFNSEG_DATA names no folder with camvid/ and voc_sample/")
    return Path(folder)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium; the test is skipped where there is none."""
    with browsing.chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


def run_tool(*args: object, **settings) -> subprocess.CompletedProcess:
    """A tool of the project in a process of its own, from the project's root.

    Modules (``-m``) and code (``-c``) run in a fresh interpreter, scripts in a forked one.
    """
    if args[0] not in ("-c", "-m"):
        return processes.run(*args, **settings)
    env = {**os.environ, **settings.pop("env", {})}
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=settings.pop("cwd", REPO),
        env=env,
        capture_output=True,
        text=True,
        timeout=settings.pop("timeout", 240),
        check=False,
        **settings,
    )


@pytest.fixture
def full_disk(tmp_path):
    """A folder on a disk of 96 KiB; the test is skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
