"""Output that nobody reads: a command goes on and writes its files, without a traceback."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPO

TOOL = """
import sys, pathlib
from cfnseg.streams import run_tool
from rich.console import Console
def main():
    for i in range(3000):
        print("a line of some length, so that the pipe fills up soon", i, flush=i % 100 == 0)
        Console(soft_wrap=True).print("a line of rich", i)
    pathlib.Path(sys.argv[1]).write_text("whole")
    print("bytes that are no text: \\udcff")
run_tool(main)
"""


def shell(command: str, path, *more: str) -> subprocess.CompletedProcess:
    env = {
        **os.environ,
        "PY": sys.executable,
        "TOOL": TOOL,
        "OUT": str(path),
        "PYTHONPATH": str(REPO),
    }
    return subprocess.run(
        ["bash", "-c", command, *more],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        '"$PY" -c "$TOOL" "$OUT" | head -1',
        '"$PY" -c "$TOOL" "$OUT" 2>&1 | head -1',
        '"$PY" -c "$TOOL" "$OUT" | true',
        '"$PY" -c "$TOOL" "$OUT" >&-',
        '"$PY" -c "$TOOL" "$OUT" >&- 2>&-',
        '"$PY" -c "$TOOL" "$OUT" 2>&-',
        '"$PY" -c "$TOOL" "$OUT" <&- | head -1',
    ],
)
def test_a_reader_that_goes(command, tmp_path):
    done = shell(f"set -o pipefail; {command}", tmp_path / "f")
    assert done.returncode == 0
    assert done.stderr == ""
    assert (tmp_path / "f").read_text() == "whole"


def test_a_full_disk_is_one_line(tmp_path):
    done = shell('"$PY" -c "$TOOL" "$OUT" > /dev/full', tmp_path / "f")
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: standard output could not be written ([Errno 28] No space left on device)\n"
    )


def test_an_error_with_nobody_to_read_it_keeps_its_exit_code(tmp_path):
    tool = (
        "from cfnseg.streams import run_tool\nfrom cfnseg.errors import UserError\n"
        "def main(): raise UserError('x', 2)\nrun_tool(main)"
    )
    for command in ('"$PY" -c "$0" 2>&-', '"$PY" -c "$0" 2> /dev/full', '"$PY" -c "$0" >&-'):
        done = shell(command, tmp_path, tool)
        assert (done.returncode, done.stderr in ("", "error: x\n")) == (2, True)
