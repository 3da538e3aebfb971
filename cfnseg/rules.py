"""Types of settings with the rule that their values follow."""

from __future__ import annotations

import re
import typing
from typing import Annotated, Literal

from cfnseg.errors import Rule

LoggerName = Literal["tensorboard", "csv", "wandb", "mlflow"]
LOGGERS = typing.get_args(LoggerName)
LoggerNames = Annotated[
    tuple[LoggerName, ...],
    Rule(
        lambda names: isinstance(names, tuple) and set(names) <= set(LOGGERS),
        f"a tuple of names among {', '.join(LOGGERS)}",
    ),
]
FromZero = Annotated[int, Rule(lambda n: n >= 0, "0 or more")]
FromOne = Annotated[int, Rule(lambda n: n >= 1, "1 or more")]
NotNegative = Annotated[float, Rule(lambda x: x >= 0, "0 or more")]
Positive = Annotated[float, Rule(lambda x: x > 0, "above 0")]
Share = Annotated[float, Rule(lambda x: 0 <= x <= 1, "0 to 1")]
BelowOne = Annotated[float, Rule(lambda x: 0 <= x < 1, "0 up to below 1")]


def _is_fold(fold: str) -> bool:
    if not re.fullmatch(r"\d+/\d+", fold):
        return not fold
    part, parts = map(int, fold.split("/"))
    return part < parts and parts >= 2


Fold = Annotated[str, Rule(_is_fold, "k/n with 0 <= k < n and n of 2 or more, such as 0/5")]


TermName = Literal["ce", "focal", "dice", "tversky", "lovasz"]
TERMS = typing.get_args(TermName)
OVERLAPS = ("dice", "tversky")  # terms of the whole batch's counts, which a part cannot know


def split_terms(terms: tuple[str, ...]) -> list[tuple[str, float]]:
    """(name, factor) of each of `Loss.terms`; ValueError for a factor that is no number."""
    parts = [term.partition(":") for term in terms]
    return [(name, float(factor or 1)) for name, _, factor in parts]


def _are_terms(terms: tuple[str, ...]) -> bool:
    try:
        known = split_terms(terms)
    except ValueError:
        return False
    names = [name for name, _ in known]
    return (
        0 < len(names) == len(set(names))
        and set(names) <= set(TERMS)
        and all(0 < factor < float("inf") for _, factor in known)
    )


Terms = Annotated[
    tuple[str, ...],
    Rule(_are_terms, f"distinct names of {', '.join(TERMS)}, with a factor above 0 as in dice:0.5"),
]
