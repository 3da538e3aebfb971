"""The comparison of two nets that give each image one label: which images one has right and the other wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binomtest

from cfnseg.metrics.uncertainty import bootstrap_mean
from cfnseg.report.summary import finite, mean_known


def compare_errors(a: list[dict[str, Any]], b: list[dict[str, Any]], classes: list[str]) -> tuple[dict, list, list]:
    """Scores, rows of classes and rows of images; see `cfnseg.compare.numbers.compare_sides`.

    Args:
        a, b: the reports' rows of the same images, in the same order.
        classes: their names.

    Source: the p-value is McNemar's exact test (1947), which Dietterich 1998 recommends for two classifiers on one test set.
    """
    wrong = {letter: np.array([row["rank"] > 1 for row in rows], np.float64) for letter, rows in (("a", a), ("b", b))}
    difference = wrong["b"] - wrong["a"]  # -1, 0 or 1: resampling it resamples the pairs
    mended, broken = int((difference < 0).sum()), int((difference > 0).sum())
    scores: dict[str, Any] = {
        "metric": "top1_error", "difference": float(difference.mean()), "ci95": list(bootstrap_mean(difference)),
        "p_value": float(binomtest(mended, mended + broken).pvalue) if mended + broken else 1.0}
    for letter, values in wrong.items():
        scores[letter] = {"score": float(values.mean()), "ci95": list(bootstrap_mean(values)), "divisor": None}
    truth = np.array([row["truth"] for row in a])
    found = []
    for name in classes:
        own = truth == name
        found.append({"name": name, "a": mean_known(wrong["a"][own]), "b": mean_known(wrong["b"][own]),
                      "difference": mean_known(difference[own]), "ci95": [finite(x) for x in bootstrap_mean(difference[own])]})
    pairs = [(x, y) for x, y in zip(a, b) if (x["rank"] > 1) != (y["rank"] > 1)]
    # the mistake that was made with the highest confidence first
    pairs.sort(key=lambda pair: (-(next(row for row in pair if row["rank"] > 1)["confidence"] or 0), pair[0]["name"]))
    return scores, found, [{"name": x["name"], "truth": x["truth"], "a": x["prediction"], "b": y["prediction"], "b_right": y["rank"] == 1}
                           for x, y in pairs]
