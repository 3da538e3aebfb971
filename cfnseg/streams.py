"""A process's ends: exit codes, signals, and streams that somebody may close (`| head`, `>&-`)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from cfnseg.errors import Stopped, UserError, first_line

MAIN = os.environ.get("RANK", "0") == "0"  # of several processes the one that prints


def run_tool(main: Callable[[], object]) -> None:
    """Run a command's main; a user's mistake becomes one line on stderr and its exit code.

    SIGINT ends it with 130, SIGTERM with 143; a file that it was writing is whole or absent.
    A reader that goes (`| head`) ends nothing: the command goes on writing its files.
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
        print(
            f"error: out of memory ({first_line(error)}); a window needs less: --window 512 512",
            file=sys.stderr,
        )
        sys.exit(1)


def leave_at_once(number: int, _: object) -> None:
    """Signal handler for the time in which nothing can be lost: one line, then the end.

    An exception could surface inside an import or a destructor, which print it as a traceback.
    """
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        sys.stdout.flush()
    if MAIN:
        with contextlib.suppress(OSError):
            os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


def own_command() -> list[str]:
    """The words that start this command again, as a user types them."""
    script = Path(sys.argv[0])
    started = {"cfnseg": ["cfnseg"], "__main__": ["python", "-m", "cfnseg"]}
    return [*started.get(script.stem, ["python", sys.argv[0]]), *sys.argv[1:]]


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Context in which work outlives the reader of stdout or stderr; output is dropped then.

    Output to a stream that was closed from the start is dropped too. Raises UserError if stdout
    cannot be written for another reason, such as a full disk.
    """
    for number in (0, 1, 2):  # a closed number would be given to the next file that is opened
        try:
            os.fstat(number)
        except OSError:
            _drop(number)
    before = sys.stdout, sys.stderr
    out, err = (
        _Lasting(stream or open(os.devnull, "w"), number)  # noqa: SIM115, PTH123
        for number, stream in enumerate(before, 1)
    )
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        try:
            out.flush()
        finally:
            sys.stdout, sys.stderr = before


class _Lasting:
    """A text stream that drops what nobody reads."""

    def __init__(self, stream: TextIO, number: int) -> None:
        self._stream, self._number = stream, number
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file name may be no text

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._kept():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._kept():
            self._stream.flush()

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _drop(self._number)  # the interpreter flushes its buffer there as it ends
            if self._number == 1 and not isinstance(error, BrokenPipeError):
                reason = first_line(error)
                raise UserError(f"standard output could not be written ({reason})") from None


def _drop(number: int) -> None:
    """Point a file descriptor at the null device."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
