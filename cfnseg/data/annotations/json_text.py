"""JSON files whose faults are one line, and their members of the expected type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from cfnseg.data.files import list_files, read_text
from cfnseg.errors import UserError

T = TypeVar("T")


def json_files(source: Path) -> list[Path]:
    """A JSON file itself, or those of a folder and its deeper folders, sorted."""
    if not source.is_dir():
        return [source]
    return [p for p in list_files(source, deep=True) if p.suffix.lower() == ".json"]


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises UserError with file and line if it is no JSON."""
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        cut = "; the file is cut off" if error.pos >= len(text.rstrip()) else ""
        raise UserError(f"{path}, line {error.lineno}: no JSON ({error.msg}){cut}") from None
    except (RecursionError, ValueError) as error:  # brackets too deep; a number of 5,000 digits
        raise UserError(f"{path}: no readable JSON ({error})") from None


def member(record: Any, key: str, kind: type[T] | tuple[type[T], ...], source: object) -> T:
    """``record[key]`` if it is of a type of ``kind``, else UserError naming ``source``."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        found = type(value).__name__ if value is not None else "nothing"
        kinds = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise UserError(f"{source}: {key!r} is {found}, expected {kinds}")
    return value
