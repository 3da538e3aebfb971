"""The images that changed most, with the prediction of either side found or made again and checked against what was counted."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.compare.sides import Side
from cfnseg.data.dataset import Dataset, open_dataset, read_sample, read_truth
from cfnseg.data.formats.class_folders import ImageSet, open_images
from cfnseg.data.labels import IGNORE, LabelMap
from cfnseg.data.predictions import find_masks, read_prediction
from cfnseg.errors import UserError
from cfnseg.evaluation.segmentation import predicted
from cfnseg.inference.predictor import pick_device
from cfnseg.inference.settings import Inference
from cfnseg.models.weights import check_labels, load

CLOSE = 0.01  # share of an image's pixels by which a prediction made again may differ: another device rounds otherwise

Predict = Callable[[Dataset, int], np.ndarray]


@dataclass(frozen=True)
class Shown:
    """An image with its truth and both predictions, (H, W) uint8 train ids; None where one could not be found again."""

    name: str
    image: np.ndarray
    truth: np.ndarray
    a: np.ndarray | None
    b: np.ndarray | None


@dataclass
class Pictures:
    """What there is to show, and a line for each thing that there is not."""

    shown: list[Shown] = field(default_factory=list)
    labels: LabelMap | None = None
    missing: list[str] = field(default_factory=list)


def find_pictures(a: Side, b: Side, names: list[str]) -> Pictures:
    """The images ``names`` of two segmentations; what cannot be found or read again is in ``missing``, with the reason."""
    found = Pictures()
    try:
        data = _first_that_opens(a, b, names, open_dataset)
    except UserError as error:
        found.missing.append(f"No picture: {error}")
        return found
    found.labels = data.labels
    predict = {}
    for letter, side in (("A", a), ("B", b)):
        try:
            predict[letter] = predictor_of(side, data)
        except UserError as error:
            found.missing.append(f"No prediction of {letter}: {error}")
    for name in names:
        index = data.names.index(name)
        try:
            image, truth = read_sample(data, index)
            _check_truth(truth, a.images[name]["counts"][1])
        except UserError as error:
            found.missing.append(f"No picture of {name}: {error}")
            continue
        masks: dict[str, np.ndarray | None] = {"A": None, "B": None}
        for letter, side in (("A", a), ("B", b)):
            if letter in predict:
                try:
                    masks[letter] = _as_counted(predict[letter](data, index), truth, side.images[name]["counts"])
                except UserError as error:
                    found.missing.append(f"No prediction of {letter} for {name}: {error}")
        found.shown.append(Shown(name, image, truth, masks["A"], masks["B"]))
    return found


def find_images(a: Side, b: Side, names: list[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The images ``names`` that have one label each, RGB (H, W, 3) uint8 by name, and the reasons where there is none."""
    if not names:
        return {}, []
    try:
        data = _first_that_opens(a, b, names, functools.partial(open_images, classes=a.classes))
        return {name: data.image(data.names.index(name)) for name in names}, []
    except UserError as error:
        return {}, [f"No picture: {error}"]


def _first_that_opens(a: Side, b: Side, names: list[str], opener: Callable[[str, str, str], Any]) -> Dataset | ImageSet:
    """The data set that has ``names``, by what either side's report says or, behind it, its run's settings."""
    reasons = []
    for name, root, split in dict.fromkeys(place for side in (a, b) for place in _places(side)):
        try:
            data = opener(name, root, split)
        except UserError as error:
            reasons.append(str(error))
            continue
        lacking = sorted(set(names) - set(data.names))
        if not lacking and data.labels.names == a.classes:
            return data
        where = f"{name}, split {split}" + (f" at {root}" if root else "")
        reasons.append(f"{where} has no image {lacking[0]}" if lacking else f"{where} has other classes")
    raise UserError("; ".join(dict.fromkeys(reasons)) or "neither the reports nor their runs' settings name the data")


def _places(side: Side) -> list[tuple[str, str, str]]:
    """Name, root and split of the data to try, the likeliest first: a run scores its own data, a report may name another root."""
    facts, data = side.facts, side.settings.get("data")
    own = [(data["name"], data["root"], data["train_split" if data["holdout"] else "val_split"])] if data else []
    told = [(facts["data"], facts.get("root", ""), facts["split"])] if {"data", "split"} <= facts.keys() else []
    return told + own if "root" in facts else own + told


def predictor_of(side: Side, data: Dataset) -> Predict:
    """How to get a side's masks again: from its folder of masks, else from its weights. Raises UserError if neither is there."""
    facts = side.facts
    if "predictions" in facts:
        folder = Path(facts["predictions"])

        def read(data: Dataset, index: int) -> np.ndarray:
            return read_prediction(find_masks(folder, [data.names[index]])[0][0], data.labels, read_truth(data, index).shape)

        find_masks(folder, [])  # says so at once if the folder is gone
        return read
    named = Path(facts.get("weights", "best.safetensors"))
    places = ([side.run / named.name] if side.run else []) + [named]
    weights = next((path for path in places if path.is_file()), None)
    if weights is None:
        raise UserError(f"its weights are no longer at {' or '.join(dict.fromkeys(map(str, places)))}")
    loaded = load(weights)
    check_labels(loaded, data.labels, weights, "the data")
    model = loaded.model.to(pick_device("auto"))
    seen = Inference(**{f.name: ast.literal_eval(facts[f.name]) for f in fields(Inference) if f.name in facts})
    return lambda data, index: predicted(model, data, index, seen)[2]


def _check_truth(truth: np.ndarray, pixels: list[int]) -> None:
    if np.bincount(truth[truth != IGNORE], minlength=len(pixels)).tolist() != pixels:
        raise UserError("its truth is not the one that was scored; other data, or its mask has changed since")


def _as_counted(prediction: np.ndarray, truth: np.ndarray, counts: list[list[int]]) -> np.ndarray:
    """The prediction, if it is the one that the report counted; files that were replaced since would show something else."""
    right = truth[(truth == prediction) & (truth != IGNORE)]
    share = np.abs(np.bincount(right, minlength=len(counts[0])) - counts[0]).sum() / max(1, sum(counts[1]))
    if share > CLOSE:
        raise UserError(f"its weights or masks have changed since: the pixels that are right differ by {share:.1%} of the image")
    return prediction
