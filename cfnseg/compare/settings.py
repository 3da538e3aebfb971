"""What was set differently in two runs."""

from __future__ import annotations

import json
from typing import Any


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings with one key each, such as ``optim.lr``."""
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, str]]:
    """The keys whose values differ, with both as text ("-" where a side lacks it), in the order of ``a``, then of ``b``."""
    a, b = flat(a), flat(b)
    return [{"key": key, "a": _text(a, key), "b": _text(b, key)} for key in {**a, **b}
            if key not in a or key not in b or a[key] != b[key]]


def _text(values: dict[str, Any], key: str) -> str:
    value = values.get(key, "-")
    return value if isinstance(value, str) and value else json.dumps(value)
