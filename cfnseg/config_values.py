"""Settings as plain values for files, and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal

from cfnseg.errors import UserError


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dict of a dataclass; tuples become lists, as JSON has it."""
    return {
        k: list(v) if isinstance(v, tuple) else to_dict(v) if dataclasses.is_dataclass(v) else v
        for k, v in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    }


def before(kind: type) -> dict[str, Any]:
    """The settings of a section in a file that was written before they existed."""
    return {f.name: f.default for f in dataclasses.fields(kind)} | getattr(kind, "BEFORE", {})


def from_dict(kind: type, values: dict[str, Any]) -> Any:
    """The inverse of `to_dict`; a setting that is not there has the value that it had before it
    existed.

    Raises UserError for an unknown key or a value of another type.
    """
    known = typing.get_type_hints(kind)
    if not isinstance(values, dict):
        raise UserError(f"{kind.__name__} settings are {str(values)[:80]!r}; expected an object")
    if unknown := sorted(set(values) - set(known)):
        raise UserError(
            f"unknown {kind.__name__} setting {ascii(', '.join(unknown))[1:-1][:200]}; "
            "this file needs a newer cfnseg"
        )
    given: dict[str, Any] = dict(getattr(kind, "BEFORE", {}))
    for key, value in values.items():
        if dataclasses.is_dataclass(known[key]):
            value = from_dict(known[key], value)
        elif isinstance(value, list):
            value = tuple(value)
        if not _is_a(value, known[key]):
            raise UserError(
                f"{kind.__name__} setting {key} is {str(value)[:80]!r}; "
                f"expected {str(known[key]).replace('typing.', '')}"
            )
        given[key] = value
    return kind(**given)


def _is_a(value: Any, hint: Any) -> bool:
    """Does a value have a field's type? A whole number is a float too; a bool is no number."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(type(value) is type(p) and value == p for p in parts)
    if origin is types.UnionType:
        return any(_is_a(value, p) for p in parts)
    if origin is tuple:
        parts = parts[:1] * len(value) if isinstance(value, tuple) and parts[-1] is ... else parts
        return (
            isinstance(value, tuple) and len(value) == len(parts) and all(map(_is_a, value, parts))
        )
    return type(value) is hint or (hint is float and type(value) is int)
