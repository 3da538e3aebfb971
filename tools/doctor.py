"""Examine a data set: python tools/doctor.py CONFIG [--section.field V] [--out DIR] [--workers N] [--mend DIR]"""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import tyro

from cfnseg.cli import run_tool
from cfnseg.config import Config, load_config
from cfnseg.errors import UserError


def main() -> None:
    argv = sys.argv[1:]
    path = argv.pop(0) if argv and not argv[0].startswith("-") else None
    if path is None and not {"-h", "--help"} & set(argv):
        raise UserError("which config? For example configs/camvid_cfn.py --data.root DIR", code=2)
    default = load_config(path) if path else Config()

    def doctor(config: Annotated[Config, tyro.conf.arg(name="")] = default, *, out: Path | None = None,
               workers: int = os.cpu_count() or 1, mend: Path | None = None) -> None:
        """Read every pair, say what is wrong and what would mend it; exit code 1 if there is an error.

        Args:
            out: where doctor.json and doctor.html go (None = runs/<config name>/doctor).
            workers: processes that read.
            mend: write a mended copy of the data set into this new folder; the old one stays as it is.
        """
        from cfnseg.doctor.build import examine_data

        sys.exit(examine_data(config, out, workers, mend, shlex.join(["python", *sys.argv]))["counts"]["error"] > 0)

    tyro.cli(doctor, args=argv, config=(tyro.conf.FlagConversionOff,), prog="doctor.py CONFIG")


if __name__ == "__main__":
    run_tool(main)
