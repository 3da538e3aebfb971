"""What the tools share: settings from the command line, and errors a person can read."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import tyro

from cfnseg.config import Config, load_config
from cfnseg.errors import UserError
from cfnseg.streams import lasting_streams


def run_tool(main: Callable[[], object]) -> None:
    """Run a tool's main; a user's mistake becomes one line on stderr and its exit code, Ctrl-C becomes 130.

    A reader that goes (`| head`) ends nothing: the tool goes on writing its files.
    """
    warnings.filterwarnings("ignore")
    try:
        with lasting_streams():
            main()
    except UserError as error:
        if os.environ.get("RANK", "0") == "0" or error.code != 2:
            with lasting_streams():
                print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)


def parse_run(argv: list[str]) -> tuple[Config, bool]:
    """The config and whether to resume, from ``CONFIG [--resume] [--section.field VALUE ...]``.

    A misspelt setting ends the process with exit code 2 and the nearest names; ``--help`` lists every setting.
    """
    rest = [a for a in argv if a != "--resume"]
    path = rest.pop(0) if rest and not rest[0].startswith("-") else None
    if path is None and not {"-h", "--help"} & set(rest):
        raise UserError("which config? Usage: CONFIG [--resume] [--section.field VALUE ...], e.g. configs/shapes_cfn.py", code=2)
    default = load_config(path) if path else Config()
    config = tyro.cli(Config, default=default, args=rest, config=(tyro.conf.FlagConversionOff,), prog="CONFIG [--resume]",
                      description="Train; every setting of the config file can be overridden. --resume continues a run.")
    return config, "--resume" in argv


def train_tool(level: str) -> None:
    """What tools/train_seg.py ("pixel") and tools/train_cls.py ("image") do with the command line.

    Raises UserError if the config is of the other level.
    """
    config, resume = parse_run(sys.argv[1:])
    if config.model.level != level:
        other = {"pixel": "tools/train_seg.py", "image": "tools/train_cls.py"}[config.model.level]
        raise UserError(f"{config.name} has model.level {config.model.level}; train it with {other}", code=2)
    from cfnseg import train
    from cfnseg.engine.hardware import leave_processes

    main = os.environ.get("RANK", "0") == "0"
    try:
        folder = train(config, resume)
    except KeyboardInterrupt:
        if main and (Path(config.runs) / config.name / "last.ckpt").exists():
            command = shlex.join([*(a for a in sys.argv if a != "--resume"), "--resume"])
            print(f"stopped and saved; continue with the same command and --resume: {command}")
        raise
    leave_processes()
    if main:
        print(f"weights: {folder / 'best.safetensors'}\nreport:  {folder / 'report' / 'report.html'}")
