"""The project's commands in processes of their own, forked from one that has imported torch.

A fresh interpreter spends 8 s of CPU on imports before a command begins. A forked one is as much a
process (pid, signals, session, exit code, streams) and begins at once.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

REPO = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.imported"])


class Tool:
    """A running command, with the part of subprocess.Popen's interface that the tests use.

    Args:
        args: the script and its arguments.
        cwd: working directory.
        env: variables added to this process's.
        new_session: lead a session and process group.
        merged: stderr goes where stdout goes.

    Attributes:
        pid: of the process.
        returncode: None while it runs; -N after signal N.
    """

    def __init__(
        self,
        *args: object,
        cwd: Path = REPO,
        env: dict[str, str] | None = None,
        new_session: bool = False,
        merged: bool = False,
    ) -> None:
        self.streams = tempfile.mkdtemp(prefix="tool-")
        places = [f"{self.streams}/{name}" for name in ("stdout", "stderr")]
        for place in places:
            Path(place).touch()
        if merged:
            places[1] = places[0]
        whole = {**os.environ, **(env or {})}
        self.process = CONTEXT.Process(
            target=_main, args=([str(a) for a in args], str(cwd), whole, places, new_session)
        )
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def output(self) -> tuple[str, str]:
        """What it wrote to stdout and stderr so far."""
        return tuple(Path(self.streams, name).read_text() for name in ("stdout", "stderr"))

    def communicate(self, timeout: float = 240) -> tuple[str, str]:
        """Wait for the end; stdout and stderr. Raises subprocess.TimeoutExpired."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(self.streams, timeout, *self.output())
        return self.output()


def run(*args: object, timeout: float = 240, **settings) -> subprocess.CompletedProcess:
    """A command to its end; see `Tool`."""
    tool = Tool(*args, **settings)
    out, err = tool.communicate(timeout)
    return subprocess.CompletedProcess(args, tool.returncode, out, err)


def _main(
    args: list[str], cwd: str, env: dict[str, str], places: list[str], new_session: bool
) -> None:
    """What the forked process does: become the command."""
    # loader processes must be forked into this process group, not started by the fork server
    multiprocessing.set_start_method(None, force=True)
    if new_session:
        os.setsid()
    for number, place in enumerate(places, 1):
        os.dup2(os.open(place, os.O_WRONLY | os.O_APPEND), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = args
    code = 0
    try:
        sys.path.insert(0, str(Path(args[0]).parent))
        runpy.run_path(args[0], run_name="__main__")
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
