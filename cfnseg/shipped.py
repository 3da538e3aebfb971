"""What ships with the package: recipes (configs/) and weights."""

from __future__ import annotations

import ast
import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

from cfnseg.errors import UserError, unknown

PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parent
# a wheel carries copies of both folders; a checkout has the originals
CONFIGS = next((p for p in (PACKAGE / "configs", CHECKOUT / "configs") if p.is_dir()), CHECKOUT)
WEIGHTS = {  # in order of preference: what each was trained on, by file
    CHECKOUT / "data" / "weights" / "camvid_cfn.safetensors": "CamVid's street scenes",
    PACKAGE / "weights" / "shapes_cfn.safetensors": "the built-in scenes",
    CHECKOUT / "data" / "weights" / "shapes_cfn.safetensors": "the built-in scenes",
}


def recipes() -> dict[str, Path]:
    """The config files that ship, by name, sorted."""
    return {path.stem: path for path in sorted(CONFIGS.glob("*_*.py"))}


def find_recipe(name: str | Path) -> Path:
    """The path of a config: a recipe's name stands for its file, everything else for itself.

    Raises UserError for a name that no recipe has.
    """
    path = Path(name)
    if path.suffix or len(path.parts) != 1 or path.exists():
        return path
    if path.name not in recipes():
        raise unknown("recipe", str(name), recipes())
    return recipes()[path.name]


def load_module(path: str | Path) -> ModuleType:
    """A config file, or a recipe by its name, as a module.

    Raises UserError if there is no such file or it fails.
    """
    path = find_recipe(path)
    if not path.is_file():
        near = sorted(str(p) for p in Path("configs").glob("*_*.py"))
        raise UserError(
            f"no config file {path}" + (f"; there are {', '.join(near)}" if near else ""), code=2
        )
    spec = importlib.util.spec_from_file_location(f"cfnseg_config_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a config file can do wrong
        raise UserError(f"{path}: {type(error).__name__}: {error}", code=2) from None
    return module


def about(recipe: Path) -> str:
    """The first line of a config's docstring."""
    text = ast.get_docstring(ast.parse(recipe.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def copy_recipe(name: str, folder: Path) -> Path:
    """Copy a recipe into a folder, to be edited.

    Raises UserError if the folder is none, or has a file of that name.
    """
    source = find_recipe(name)
    target = folder / source.name
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; expected one for {source.name}", code=2)
    try:
        with source.open("rb") as read, target.open("xb") as write:
            shutil.copyfileobj(read, write)
    except FileExistsError:
        raise UserError(f"{target} exists and was not overwritten", code=2) from None
    except OSError as error:
        raise UserError(f"{target}: {error.strerror or error}") from None
    return target


def shipped_weights() -> Path:
    """The weights file for who gives none: CamVid's in a checkout, else the small one of the wheel.

    Raises UserError if neither is there.
    """
    for path in WEIGHTS:
        if path.is_file():
            return path
    raise UserError(
        f"no shipped weights: not found at {', '.join(map(str, WEIGHTS))}; "
        "give a weights file (--weights)"
    )
