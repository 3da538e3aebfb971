"""The numbers of a comparison as plain data: what compare.json holds and the other two files show. Differences are B less A."""

from __future__ import annotations

from typing import Any

import numpy as np

from cfnseg.compare.labels import compare_errors
from cfnseg.compare.settings import differing
from cfnseg.compare.sides import Side, match
from cfnseg.metrics.confusion import iou_of
from cfnseg.metrics.uncertainty import bootstrap_miou, paired_classes, paired_difference
from cfnseg.report.summary import finite, mean_known

OTHERS = {"pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy", "boundary_miou": "boundary mIoU",
          "image_map": "image-head mAP", "top5_error": "top-5 error", "mean_class_error": "mean class error", "loss": "loss"}


def compare_sides(a: Side, b: Side) -> dict[str, Any]:
    """The content of compare.json.

    Args:
        a, b: two scored runs; differences are those of ``b`` less those of ``a``.

    Returns:
        metric: "miou" (higher is better) or "top1_error" (lower is better); a, b: name, report, score, ci95 [low, high] and
        divisor (classes in the mIoU) over the images that both have; difference, ci95 and two-sided p_value; num_images;
        left_out: how many images only a and only b has; others: name, a, b of further scores, where both have the same images;
        classes: name, a, b, difference, ci95 of each (see `changed` for the order); images: mIoU: name, a, b, difference of
        each, the largest first; top-1 error: name, truth, a and b (predictions) and b_right of those that one side alone has
        right; facts, settings, environment: key, a, b of what differs; without_settings: the sides that have no config.json.
        Scores are in 0..1; None where nothing was counted, so it is strict JSON.

    Raises:
        UserError: the two cannot be compared; see `cfnseg.compare.sides.match`.
    """
    names = match(a, b)
    rows = [[side.images[name] for name in names] for side in (a, b)]
    scores, classes, images = (compare_errors if a.level == "image" else _compare_miou)(*rows, a.classes)
    for letter, side in (("a", a), ("b", b)):
        scores[letter] = {"name": side.name, "report": str(side.report), **scores[letter]}
    known = a.settings and b.settings
    homes, settings = [], []
    for side in (a, b):
        rest = dict(side.settings)
        homes.append(rest.pop("environment", {}))
        settings.append(rest)
    both = len(names) == len(a.images) == len(b.images)
    return {
        **scores, "num_images": len(names), "left_out": {"a": len(a.images) - len(names), "b": len(b.images) - len(names)},
        "others": [{"name": text, "a": a.content[key], "b": b.content[key]} for key, text in OTHERS.items()
                   if both and a.content.get(key) is not None and b.content.get(key) is not None],
        "classes": sorted(classes, key=lambda row: (not changed(row), row["difference"] is None, -abs(row["difference"] or 0))),
        "images": images, "facts": differing(a.facts, b.facts), "settings": differing(*settings) if known else [],
        "environment": differing(*homes) if known else [],
        "without_settings": [letter for letter, side in (("a", a), ("b", b)) if not side.settings]}


def changed(row: dict[str, Any]) -> bool:
    """Whether the 95 % interval of a difference excludes 0; such classes come first, each kind by the size of the difference."""
    low, high = row["ci95"]
    return low is not None and (low > 0 or high < 0)


def _compare_miou(a: list[dict[str, Any]], b: list[dict[str, Any]], classes: list[str]) -> tuple[dict, list, list]:
    """Scores, rows of classes and rows of images from the reports' rows of the same images."""
    ours, theirs = (np.array([row["counts"] for row in rows], np.int64) for rows in (b, a))
    value, low, high, p = paired_difference([ours], [theirs])
    iou = {"a": iou_of(theirs.sum(0)), "b": iou_of(ours.sum(0))}
    scores = {"metric": "miou", "difference": value, "ci95": [low, high], "p_value": p}
    for letter, counts in (("a", theirs), ("b", ours)):
        scores[letter] = {"score": mean_known(iou[letter]), "ci95": [finite(x) for x in bootstrap_miou(counts)],
                          "divisor": int((~np.isnan(iou[letter])).sum())}
    found = [{"name": name, "a": finite(iou["a"][c]), "b": finite(iou["b"][c]), "difference": finite(row[0]),
              "ci95": [finite(row[1]), finite(row[2])]} for c, (name, row) in enumerate(zip(classes, paired_classes([ours], [theirs])))]
    images = [{"name": x["name"], "a": x["miou"], "b": y["miou"], "difference": y["miou"] - x["miou"]}
              for x, y in zip(a, b) if x["miou"] is not None and y["miou"] is not None]
    return scores, found, sorted(images, key=lambda row: (-abs(row["difference"]), row["name"]))
