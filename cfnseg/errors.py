"""Mistakes that a user can fix, rules that values must follow, and the request to stop."""

from __future__ import annotations

import difflib
import signal
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


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


def lacking(what: str, extra: str) -> UserError:
    """The error for ``what`` that needs packages of an extra that are not installed."""
    return UserError(f'{what} needs more packages: pip install "cfnseg[{extra}]"')


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type without one; libraries append advice."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class Rule:
    """What a value of a setting must be: a test, and the words for it in the error."""

    fits: Callable[[Any], bool]
    expected: str


def check_rules(values: Any, named: Callable[[str], str]) -> None:
    """Raise UserError for the first field of a dataclass that breaks its `Rule`.

    Args:
        values: the dataclass, with fields such as ``lr: Annotated[float, Rule(...)]``.
        named: the name in the error for a field's name.
    """
    for name, hint in typing.get_type_hints(type(values), include_extras=True).items():
        for rule in getattr(hint, "__metadata__", ()):
            value = getattr(values, name)
            demand(rule.fits(value), named(name), value, rule.expected)


def demand(fits: object, name: str, value: object, expected: str) -> None:
    """Raise UserError (usage) unless a value fits."""
    if not fits:
        raise UserError(f"{name} is {value}; expected {expected}", code=2)
