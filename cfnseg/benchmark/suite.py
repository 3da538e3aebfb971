"""A suite: named configs that differ in what is compared and in nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cfnseg.config import Config, load_module
from cfnseg.errors import UserError


@dataclass(frozen=True)
class Suite:
    """What `tools/benchmark.py` compares.

    Attributes:
        systems: config by the system's name; names are file names as well.
        reference: the system that the others are tested against.
        name: the suite's name; its folder is runs/<name>.
        size: (H, W) of the images that cost is measured with.
        classes: C of the data set.
    """

    systems: dict[str, Config]
    reference: str
    size: tuple[int, int]
    classes: int
    name: str = ""

    def run(self, system: str, seed: int, folder: Path, root: str = "") -> Config:
        """The config of one run in ``folder``."""
        config = self.systems[system]
        data = replace(config.data, root=root) if root else config.data
        return replace(config, name=f"{system}-s{seed}", runs=str(folder), data=data, train=replace(config.train, seed=seed))


def load_suite(path: str | Path) -> Suite:
    """The ``suite`` of a config file, named after the file. Raises UserError if there is none."""
    suite = getattr(load_module(path), "suite", None)
    if not isinstance(suite, Suite):
        raise UserError(f"{path} defines no `suite = cfnseg.benchmark.suite.Suite(...)`", code=2)
    if suite.reference not in suite.systems:
        raise UserError(f"{path}: the reference {suite.reference!r} is none of its systems {', '.join(suite.systems)}", code=2)
    return suite if suite.name else replace(suite, name=Path(path).stem)
