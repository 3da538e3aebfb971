"""``cfnseg doctor``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import tyro

from cfnseg.config import Config
from cfnseg.streams import own_command


def doctor(
    config: Annotated[tyro.conf.FlagConversionOff[Config], tyro.conf.arg(name="")], *,
    out: Path | None = None, workers: int = os.cpu_count() or 1, fix: Path | None = None,
) -> int:
    """Read every pair, name what is wrong and what fixes it; exit code 1 if there is an error.

    Args:
        out: folder of doctor.json and doctor.html (None = runs/<config name>/doctor).
        workers: processes that read.
        fix: write a fixed copy of the data set into this new folder; the old one stays as it is.
    """
    from cfnseg.doctor.build import examine_data

    report = examine_data(config, out, workers, fix, shlex.join(own_command()))
    return int(report["counts"]["error"] > 0)
