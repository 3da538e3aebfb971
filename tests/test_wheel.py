"""The wheel: recipes, small weights and types are in it, and commands run from it alone."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from cfnseg.config import Model
from cfnseg.data.formats.shapes import ShapesDataset
from cfnseg.models.build import build_model
from cfnseg.models.weights import save_weights
from tests.conftest import ENCODER, REPO

WHEEL = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
    "wheel"
]
SMALL = "data/weights/shapes_cfn.safetensors"


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """A copy of what the wheel is built of, with a tiny model where the small one is missing."""
    folder = tmp_path_factory.mktemp("sources")
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in ("cfnseg", "configs"):
        shutil.copytree(REPO / name, folder / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, folder / name)
    (folder / SMALL).parent.mkdir(parents=True)
    if (REPO / SMALL).is_file():
        shutil.copy(REPO / SMALL, folder / SMALL)
    else:
        settings, labels = (
            Model(encoder=ENCODER, encoder_weights=None, width=8),
            ShapesDataset("val").labels,
        )
        save_weights(
            folder / SMALL, build_model(settings, len(labels)), settings, labels, {"data": "shapes"}
        )
    return folder


def check_contents(package: Path) -> None:
    """Files of an unpacked wheel: those of the repository, once, and no other weights."""
    assert (package / "py.typed").is_file()
    shipped = {path.name: path.read_bytes() for path in (package / "configs").glob("*.py")}
    assert shipped == {path.name: path.read_bytes() for path in (REPO / "configs").glob("*.py")}
    assert [path.name for path in package.rglob("*.safetensors")] == ["shapes_cfn.safetensors"]
    assert sum(path.stat().st_size for path in package.rglob("*")) < 25e6
    for folder in ("report/templates", "doctor"):
        assert any((package / folder).iterdir())


def run_from(site: Path, folder: Path, *words: str) -> str:
    """The output of ``python -m cfnseg WORDS`` with the package from ``site`` alone."""
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-m", "cfnseg", *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_commands(site: Path, folder: Path) -> None:
    """Recipes are found, copied and derived from each other outside of any checkout."""
    assert "camvid_cfn " in run_from(site, folder, "recipes")
    run_from(site, folder, "recipes", "--copy", "cifar10_cfn_short", ".")
    assert [path.name for path in folder.iterdir()] == ["cifar10_cfn_short.py"]
    text = run_from(site, folder, "classify", "cifar10_cfn_short.py", "--help")
    assert "(default: 900)" in text  # its train.max_steps, which cifar10_cfn does not set


def test_the_wheels_layout(sources, tmp_path):
    """The build's rules in pyproject.toml, by hand."""
    site, folder = tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    for package in WHEEL["packages"]:
        shutil.copytree(sources / package, site / package)
    for source, target in WHEEL["force-include"].items():
        (site / target).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (sources / source).is_dir() else shutil.copy)(
            sources / source, site / target
        )
    check_contents(site / "cfnseg")
    check_commands(site, folder)


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec("hatchling"), reason="needs hatchling: pip install -e .[dev]"
)
def test_the_wheel(sources, tmp_path):
    site, folder = tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            tmp_path,
            sources,
        ],
        check=True,
        timeout=240,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        packed.extractall(site)
    assert len(names) == len(set(names)) and not [name for name in names if "__pycache__" in name]
    check_contents(site / "cfnseg")
    (entry,) = site.glob("*.dist-info/entry_points.txt")
    assert "cfnseg = cfnseg.cli:main" in entry.read_text()
    check_commands(site, folder)


@pytest.mark.slow
def test_the_small_model_segments_from_the_wheel(sources, tmp_path):
    """``cfnseg infer photo.png`` with the wheel's own weights, in an empty folder."""
    from PIL import Image

    from cfnseg.data.formats.shapes import render

    site, folder = tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    shutil.copytree(sources / "cfnseg", site / "cfnseg")
    (site / "cfnseg" / "weights").mkdir()
    shutil.copy(sources / SMALL, site / "cfnseg" / "weights")
    Image.fromarray(render(7)[0]).save(folder / "photo.png")
    text = run_from(site, folder, "infer", "photo.png", "--device", "cpu")
    assert text.startswith(
        "no --weights: shapes_cfn.safetensors is used, trained on the built-in scenes"
    )
    assert Image.open(folder / "out" / "photo_mask.png").size == (256, 192)
