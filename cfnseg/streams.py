"""Standard output and error that somebody may close: `| head`, `>&-`, a full disk."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from cfnseg.errors import UserError, first_line


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """While it lasts, work goes on when the reader of standard output or error has gone; what follows is thrown away.

    A stream that was closed from the start is thrown away too. Raises UserError if standard output cannot be written for
    another reason, such as a full disk.
    """
    for number in (0, 1, 2):  # a closed number would be given to the next file that is opened
        try:
            os.fstat(number)
        except OSError:
            _throw_away(number)
    before = sys.stdout, sys.stderr
    out, err = (_Lasting(stream or open(os.devnull, "w"), n) for n, stream in enumerate(before, 1))  # noqa: SIM115, PTH123
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        try:
            out.flush()
        finally:
            sys.stdout, sys.stderr = before


class _Lasting:
    """A text stream that throws away what nobody reads."""

    def __init__(self, stream: TextIO, number: int) -> None:
        self._stream, self._number = stream, number
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no text

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
            _throw_away(self._number)  # what is left in the buffer goes there as well, at the interpreter's end
            if self._number == 1 and not isinstance(error, BrokenPipeError):
                raise UserError(f"standard output could not be written ({first_line(error)})") from None


def _throw_away(number: int) -> None:
    """Let a file descriptor lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
