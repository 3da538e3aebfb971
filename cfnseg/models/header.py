"""The JSON header of a weights file; nothing in it is trusted."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from cfnseg.config import Model
from cfnseg.config_values import from_dict
from cfnseg.data.bands import TYPES, Bands
from cfnseg.data.labels import ClassNames, Label, LabelMap
from cfnseg.errors import UserError, check_rules, first_line

LARGEST_CROP = 4096  # of classification, in pixels; a larger one only costs memory


class Header(NamedTuple):
    """What a weights file says of itself.

    Attributes:
        settings: the model section it was built from.
        labels: its classes.
        score: what it reached; see `cfnseg.models.weights.Weights`.
        normalisation: of the input: mean and std, or the authors' contrast; with ``type`` that of
            `cfnseg.data.bands.Bands`.
    """

    settings: Model
    labels: LabelMap | ClassNames
    score: dict[str, Any]
    normalisation: dict[str, Any]

    @property
    def bands(self) -> Bands | None:
        """Of the images; None for 8-bit RGB."""
        return Bands.of(self.normalisation)


def read_header(text: str) -> Header:
    """The header that `cfnseg.models.weights.save_weights` wrote as ``text``.

    Raises:
        UserError: no JSON object, a key twice, a number that is not finite, or a value that no file
            of ours has.
    """
    try:
        header = json.loads(
            text, object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite
        )
    except (ValueError, RecursionError) as error:
        raise UserError(f"the cfnseg header cannot be read ({first_line(error)[:200]})") from None
    header = _demand("the header", header, dict)
    settings = from_dict(Model, _demand("model", header.get("model"), dict))
    check_rules(settings, "model.{}".format)
    labels = _demand("labels", header.get("labels"), dict)
    classes = (_class_names if settings.level == "image" else _label_map)(labels)
    return Header(
        settings,
        classes,
        _score(header.get("score", {}), len(classes)),
        _normalisation(header.get("normalisation")),
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no finite number")
    return value


def _demand(what: str, value: Any, kind: type, fits: bool = True) -> Any:
    """``value`` if it is of exactly that JSON type and ``fits``, else UserError."""
    if type(value) is not kind or not fits:
        raise UserError(
            f"{what} in the cfnseg header is {str(value)[:80]!r}; expected what cfnseg writes there"
        )
    return value


def _byte(what: str, value: Any) -> int:
    return _demand(what, value, int, type(value) is int and 0 <= value <= 255)


def _label_map(values: dict[str, Any]) -> LabelMap:
    labels = []
    for entry in _demand("labels.labels", values.get("labels"), list, bool(values.get("labels"))):
        index, name, color = _demand(
            "a label", entry, list, type(entry) is list and len(entry) == 3
        )
        color = _demand("a label's colour", color, list, type(color) is list and len(color) == 3)
        labels.append(
            Label(
                _byte("a label's id", index),
                _demand("a label's name", name, str),
                tuple(_byte("a label's colour", c) for c in color),
            )
        )
    ignore = [
        _byte("labels.ignore", i) for i in _demand("labels.ignore", values.get("ignore"), list)
    ]
    try:
        return LabelMap(labels, ignore, _byte("labels.void", values.get("void")))
    except ValueError as error:
        raise UserError(first_line(error)[:300]) from None


def _class_names(values: dict[str, Any]) -> ClassNames:
    names = _demand("labels.names", values.get("names"), list, bool(values.get("names")))
    return ClassNames(_demand("a class name", name, str) for name in names)


def _score(values: Any, classes: int) -> dict[str, Any]:
    """What evaluation reads of it has the type that evaluation needs; the rest is for people."""
    values = _demand("score", values, dict)
    for key, kind in (("data", str), ("split", str), ("held_out", int)):
        if key in values:
            _demand(f"score.{key}", values[key], kind)
    if "thresholds" in values:
        each = values["thresholds"]
        fits = type(each) is list and len(each) == classes
        for value in _demand("score.thresholds", each, list, fits):
            _demand("score.thresholds", value, float, type(value) is float and 0 <= value <= 1)
    if "crop" in values:
        crop = _demand(
            "score.crop",
            values["crop"],
            list,
            type(values["crop"]) is list and len(values["crop"]) == 2,
        )
        for side in crop:
            _demand("score.crop", side, int, type(side) is int and 1 <= side <= LARGEST_CROP)
    return values


def _normalisation(values: Any) -> dict[str, Any]:
    values = _demand("normalisation", values, dict)
    channels, least, most = 3, 1e-6, 1e6
    if "type" in values:
        kind = values["type"]
        _demand("normalisation.type", kind, str, kind in TYPES and {"mean", "std"} < values.keys())
        most, least = 3.5e38, 1e-38  # what float32 holds
        channels = len(values["mean"]) if type(values["mean"]) is list else 0
    for key in {"mean", "std"} & values.keys():
        numbers = _demand(
            f"normalisation.{key}",
            values[key],
            list,
            type(values[key]) is list and 1 <= len(values[key]) == channels,
        )
        for number in numbers:
            fits = (
                type(number) in (int, float)
                and abs(number) <= most
                and (key == "mean" or number >= least)
            )
            _demand(f"normalisation.{key}", number, type(number), fits)
    return values
