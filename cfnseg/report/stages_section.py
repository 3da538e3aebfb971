"""The section "Which stage decides" of a segmentation's report: classes by branches of a CFN."""

from __future__ import annotations

from typing import Any

import numpy as np

from cfnseg.data.labels import LabelMap
from cfnseg.evaluation.decisions import Decisions
from cfnseg.report.text import plural, share, table

LEAST = 0.001  # share of all cells below which a class is not in the sentence
RULE = (
    "A branch decides a cell where its part in the margin is the largest; the margin is the logit "
    "of the predicted class less that of the runner-up. Parts are exact: with the ReLUs as the "
    "image sets them, the logits are the sum of the branches' parts and the biases'."
)


def decisions_of(counted: Decisions | None, labels: LabelMap) -> dict[str, Any] | None:
    """The entry of report.json; None where nothing was counted.

    Returns:
        images; branches: their names, the last is "bias"; classes: name, cells (predicted as it,
        one of the logits each), decided (share of the cells that each branch decides) and margin
        (mean part of each branch in the margin, in logits), both None without a cell.
    """
    if counted is None:
        return None
    rows = []
    for label, cells, parts in zip(labels.labels, counted.decided, counted.margins):
        total = int(cells.sum())
        rows.append(
            {
                "name": label.name,
                "cells": total,
                "decided": (cells / total).tolist() if total else None,
                "margin": (parts / total).tolist() if total else None,
            }
        )
    return {"images": counted.images, "branches": counted.names, "classes": rows}


def decided_sentence(decisions: dict[str, Any]) -> str:
    """The class and branch whose share is furthest above the branch's share of all cells.

    "" without such a pair.
    """
    cells = np.array([row["cells"] for row in decisions["classes"]])
    decided = np.array(
        [row["decided"] or [0.0] * len(decisions["branches"]) for row in decisions["classes"]]
    )
    if not cells.any():
        return ""
    whole = cells @ decided / cells.sum()
    above = np.where(cells[:, None] >= LEAST * cells.sum(), decided - whole, 0)
    c, s = np.unravel_index(above.argmax(), above.shape)
    if above[c, s] <= 0:
        return ""
    name, branch = decisions["classes"][c]["name"], decisions["branches"][s]
    return (
        f"Clearest: {name} comes from {branch}, which decides {share(decided[c, s])} of its area "
        f"and {share(whole[s])} of all."
    )


def extent(decisions: dict[str, Any], images: int) -> str:
    """How many of the split's images were explained."""
    count = decisions["images"]
    every = "every image" if count == images else f"{count} of {plural(images, 'image')}"
    return f"Over {every}{'' if count == images else ', evenly spread'}."


def decision_lines(decisions: dict[str, Any], images: int) -> list[str]:
    """Lines of report.md."""
    rows = [
        [row["name"], *map(share, row["decided"])] for row in decisions["classes"] if row["cells"]
    ]
    return [
        "Which stage decides, share of the area predicted as a class:",
        "",
        *table(["class", *decisions["branches"]], rows),
        "",
        " ".join(filter(None, [decided_sentence(decisions), extent(decisions, images), RULE])),
        "",
    ]
