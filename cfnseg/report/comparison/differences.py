"""The numbers of a comparison as plain data: the content of compare.json. Differences are B - A."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from scipy.stats import binomtest

from cfnseg.metrics.confusion import iou_of
from cfnseg.metrics.uncertainty import (
    bootstrap_mean,
    bootstrap_miou,
    paired_classes,
    paired_difference,
)
from cfnseg.report.comparison.sides import Side, match
from cfnseg.report.segmentation_report import finite, mean_known

OTHERS = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "boundary_miou": "boundary mIoU",
    "image_map": "image-head mAP",
    "top5_error": "top-5 error",
    "mean_class_error": "mean class error",
    "loss": "loss",
}
Rows = list[dict[str, Any]]


def compare_sides(a: Side, b: Side) -> dict[str, Any]:
    """The content of compare.json, strict JSON.

    Args:
        a, b: two scored runs.

    Returns:
        Scores in 0..1, None where nothing was counted:

        * metric: "miou" (higher is better) or "top1_error" (lower is better).
        * a, b: name, report, score, ci95 [low, high] and divisor (classes in the mIoU, or None)
          over the images that both have.
        * difference, ci95, two-sided p_value, num_images.
        * left_out: how many images only a and only b has.
        * others: name, a, b of further scores, where both have the same images.
        * classes: name, a, b, difference, ci95. Changed classes (see `changed`) come first, each
          kind by the size of the difference.
        * images: for mIoU name, a, b, difference, the largest first; for top-1 error name, truth,
          a and b (predictions) and b_right of the images that only one side has right.
        * facts, settings, environment: key, a, b of what differs.
        * without_settings: the sides without a config.json.

    Raises:
        UserError: the two cannot be compared; see `cfnseg.report.comparison.sides.match`.
    """
    names = match(a, b)
    ours, theirs = ([side.images[name] for name in names] for side in (a, b))
    score = compare_errors if a.level == "image" else compare_miou
    scores, classes, images = score(ours, theirs, a.classes)
    for letter, side in (("a", a), ("b", b)):
        scores[letter] = {"name": side.name, "report": str(side.report), **scores[letter]}
    unknown = [letter for letter, side in (("a", a), ("b", b)) if not side.settings]
    settings = [dict(side.settings) for side in (a, b)]
    homes = [values.pop("environment", {}) for values in settings]
    left_out = {letter: len(side.images) - len(names) for letter, side in (("a", a), ("b", b))}
    others = [
        {"name": text, "a": a.content[key], "b": b.content[key]}
        for key, text in OTHERS.items()
        if not any(left_out.values())
        and a.content.get(key) is not None
        and b.content.get(key) is not None
    ]

    def order(row: dict[str, Any]) -> tuple[bool, bool, float]:
        return not changed(row), row["difference"] is None, -abs(row["difference"] or 0)

    return {
        **scores,
        "num_images": len(names),
        "left_out": left_out,
        "others": others,
        "classes": sorted(classes, key=order),
        "images": images,
        "facts": differing(a.facts, b.facts),
        "settings": [] if unknown else differing(*settings),
        "environment": [] if unknown else differing(*homes),
        "without_settings": unknown,
    }


def changed(row: dict[str, Any]) -> bool:
    """Whether the 95 % interval of a difference excludes 0."""
    low, high = row["ci95"]
    return low is not None and (low > 0 or high < 0)


def compare_miou(a: Rows, b: Rows, classes: list[str]) -> tuple[dict, Rows, Rows]:
    """Scores, rows of classes and rows of images.

    Args:
        a, b: the reports' rows of the same images, in the same order.
        classes: their names.
    """
    old, new = (np.array([row["counts"] for row in rows], np.int64) for rows in (a, b))
    value, low, high, p = paired_difference([new], [old])
    scores = {"metric": "miou", "difference": value, "ci95": [low, high], "p_value": p}
    iou = {"a": iou_of(old.sum(0)), "b": iou_of(new.sum(0))}
    for letter, counts in (("a", old), ("b", new)):
        scores[letter] = {
            "score": mean_known(iou[letter]),
            "ci95": [finite(x) for x in bootstrap_miou(counts)],
            "divisor": int((~np.isnan(iou[letter])).sum()),
        }
    found = [
        {
            "name": name,
            "a": finite(iou["a"][c]),
            "b": finite(iou["b"][c]),
            "difference": finite(row[0]),
            "ci95": [finite(x) for x in row[1:3]],
        }
        for c, (name, row) in enumerate(zip(classes, paired_classes([new], [old])))
    ]
    images = [
        {"name": x["name"], "a": x["miou"], "b": y["miou"], "difference": y["miou"] - x["miou"]}
        for x, y in zip(a, b)
        if x["miou"] is not None and y["miou"] is not None
    ]
    return scores, found, sorted(images, key=lambda row: (-abs(row["difference"]), row["name"]))


def compare_errors(a: Rows, b: Rows, classes: list[str]) -> tuple[dict, Rows, Rows]:
    """Scores, rows of classes and rows of images of two classifications; as `compare_miou`.

    Source: the p-value is McNemar's exact test (1947), which Dietterich 1998 recommends for two
    classifiers on one test set.
    """
    wrong = {
        letter: np.array([row["rank"] > 1 for row in rows], np.float64)
        for letter, rows in (("a", a), ("b", b))
    }
    difference = wrong["b"] - wrong["a"]  # -1, 0 or 1: resampling it resamples the pairs
    fixed, broken = int((difference < 0).sum()), int((difference > 0).sum())
    p = float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0
    scores: dict[str, Any] = {
        "metric": "top1_error",
        "difference": float(difference.mean()),
        "ci95": list(bootstrap_mean(difference)),
        "p_value": p,
    }
    for letter, values in wrong.items():
        scores[letter] = {
            "score": float(values.mean()),
            "ci95": list(bootstrap_mean(values)),
            "divisor": None,
        }
    truth = np.array([row["truth"] for row in a])
    found = []
    for name in classes:
        own = truth == name
        found.append(
            {
                "name": name,
                "a": mean_known(wrong["a"][own]),
                "b": mean_known(wrong["b"][own]),
                "difference": mean_known(difference[own]),
                "ci95": [finite(x) for x in bootstrap_mean(difference[own])],
            }
        )
    pairs = [(x, y) for x, y in zip(a, b) if (x["rank"] > 1) != (y["rank"] > 1)]

    def order(pair: tuple[dict[str, Any], dict[str, Any]]) -> tuple[float, str]:
        """The most confident mistake first."""
        mistake = pair[0] if pair[0]["rank"] > 1 else pair[1]
        return -(mistake["confidence"] or 0), mistake["name"]

    return (
        scores,
        found,
        [
            {
                "name": x["name"],
                "truth": x["truth"],
                "a": x["prediction"],
                "b": y["prediction"],
                "b_right": y["rank"] == 1,
            }
            for x, y in sorted(pairs, key=order)
        ],
    )


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, str]]:
    """Key and both values as text of the settings that differ; nested keys as ``optim.lr``.

    A side without the key has "-". The order is that in ``a``, then in ``b``.
    """
    a, b, absent = _flat(a), _flat(b), object()
    return [
        {"key": key, "a": _text(a.get(key, "-")), "b": _text(b.get(key, "-"))}
        for key in {**a, **b}
        if a.get(key, absent) != b.get(key, absent)
    ]


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        nested = isinstance(value, dict)
        found |= _flat(value, f"{before}{key}.") if nested else {f"{before}{key}": value}
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)
