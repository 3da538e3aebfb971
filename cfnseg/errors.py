"""Mistakes that a user can fix, and the request to stop."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class UserError(Exception):
    """One clear line for the user, printed without a traceback.

    Args:
        message: names the file, the value, what was expected and what to do.
        code: the exit status: 2 for wrong usage, 1 for work that failed.
        everywhere: every process of the run raises it, so rank 0 alone prints it.
    """

    def __init__(self, message: str, code: int = 1, everywhere: bool = False) -> None:
        super().__init__(message)
        self.code, self.everywhere = code, everywhere


class Stopped(KeyboardInterrupt):
    """The work was asked to stop; what it had is saved.

    Attributes:
        signal: the number of the signal; the process exits with 128 + this.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


def unknown(setting: str, value: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in ``known``: it names the nearest, and all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(value), known, 3, 0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else "."
    return UserError(f"{setting} {value!r} is unknown{hint} There are {', '.join(known)}", code=2)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type without one; libraries append advice."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
