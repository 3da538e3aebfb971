"""Examine a data set: python tools/doctor.py CONFIG [--data.FIELD V] [--out DIR] [--fix DIR]"""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import tyro

from cfnseg.cli import run_tool
from cfnseg.config import Config, load_config
from cfnseg.data.files import note
from cfnseg.errors import UserError


def main() -> None:
    argv = sys.argv[1:]
    path = argv.pop(0) if argv and not argv[0].startswith("-") else None
    if path is None and not {"-h", "--help"} & set(argv):
        raise UserError("which config? For example configs/camvid_cfn.py --data.root DIR", code=2)
    if any(word.split("=")[0] == "--mend" for word in argv):
        note("--mend is now --fix; the old name works too")
        argv = [f"--fix{w[6:]}" if w.split("=")[0] == "--mend" else w for w in argv]
    default = load_config(path) if path else Config()

    def doctor(config: Annotated[Config, tyro.conf.arg(name="")] = default, *,
               out: Path | None = None, workers: int = os.cpu_count() or 1,
               fix: Path | None = None) -> None:
        """Read every pair, name what is wrong and what fixes it; exit code 1 if there is an error.

        Args:
            out: folder of doctor.json and doctor.html (None = runs/<config name>/doctor).
            workers: processes that read.
            fix: write a fixed copy of the data set into this new folder; the old one stays.
        """
        from cfnseg.doctor import examine_data

        command = shlex.join(["python", *sys.argv])
        sys.exit(examine_data(config, out, workers, fix, command)["counts"]["error"] > 0)

    tyro.cli(doctor, args=argv, config=(tyro.conf.FlagConversionOff,), prog="doctor.py CONFIG")


if __name__ == "__main__":
    run_tool(main)
