"""What the tools share: settings from the command line, and errors a person can read."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable

from cfnseg.config import Config, load_config
from cfnseg.errors import UserError, first_line
from cfnseg.streams import lasting_streams
from cfnseg.training.stopping import SIGNALS, Stopped

MAIN = os.environ.get("RANK", "0") == "0"  # of several processes the one that speaks


def run_tool(main: Callable[[], object]) -> None:
    """Run a tool's main; a user's mistake becomes one line on stderr and its exit code.

    SIGINT ends it with 130, SIGTERM with 143; what it was writing is whole or absent.
    A reader that goes (`| head`) ends nothing: the tool goes on writing its files.
    """
    warnings.filterwarnings("ignore")

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    signal.signal(signal.SIGTERM, stop)
    try:
        with lasting_streams():
            main()
    except UserError as error:
        if MAIN or not (error.everywhere or error.code == 2):
            with lasting_streams():
                print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt as stopped:
        sys.exit(128 + getattr(stopped, "signal", signal.SIGINT))
    except Exception as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        print(f"error: out of memory ({first_line(error)}); a window needs less: --window 512 512", file=sys.stderr)
        sys.exit(1)


def leave_at_once(number: int, _: object) -> None:
    """A signal handler for the time in which nothing is lost: one line and the end, whatever is going on.

    An exception could surface inside an import or a destructor, which print it as a traceback.
    """
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        sys.stdout.flush()
    if MAIN:
        with contextlib.suppress(OSError):
            os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


def parse_run(argv: list[str]) -> tuple[Config, bool]:
    """The config and whether to resume, from ``CONFIG [--resume] [--section.field VALUE ...]``.

    A misspelt setting ends the process with exit code 2 and the nearest names; ``--help`` lists every setting.
    """
    rest = [a for a in argv if a != "--resume"]
    path = rest.pop(0) if rest and not rest[0].startswith("-") else None
    if path is None and not {"-h", "--help"} & set(rest):
        raise UserError("which config? Usage: CONFIG [--resume] [--section.field VALUE ...], e.g. configs/shapes_cfn.py", code=2)
    import tyro

    default = load_config(path) if path else Config()
    for auto in (["--train.batch", "auto"], ["--train.batch=auto"]):
        for i in range(len(rest)):
            if rest[i : i + len(auto)] == auto:  # the batch stays that of the file; how it is split is found at the start
                rest[i : i + len(auto)] = ["--train.accumulate", "0"]
    config = tyro.cli(Config, default=default, args=rest, config=(tyro.conf.FlagConversionOff,), prog="CONFIG [--resume]",
                      description="Train; every setting of the config file can be overridden. --resume continues a run.")
    return config, "--resume" in argv


def train_tool(level: str) -> None:
    """What tools/train_seg.py ("pixel") and tools/train_cls.py ("image") do with the command line.

    Raises UserError if the config is of the other level.
    """
    for number in SIGNALS:
        signal.signal(number, leave_at_once)  # until the training takes over there is nothing to save
    config, resume = parse_run(sys.argv[1:])
    if config.model.level != level:
        other = {"pixel": "tools/train_seg.py", "image": "tools/train_cls.py"}[config.model.level]
        raise UserError(f"{config.name} has model.level {config.model.level}; train it with {other}", code=2)
    from cfnseg import train
    from cfnseg.training.hardware import leave_processes

    try:
        folder = train(config, resume)
    except Stopped as stopped:
        if MAIN:
            command = shlex.join(["python", *(a for a in sys.argv if a != "--resume"), "--resume"])
            print(f"{stopped} and saved; continue with the same command and --resume: {command}", flush=True)
        raise
    leave_processes()
    if MAIN:
        print(f"weights: {folder / 'best.safetensors'}\nreport:  {folder / 'report' / 'report.html'}")
