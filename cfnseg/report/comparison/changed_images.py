"""The images that changed most, with both predictions, found or made again and checked."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from cfnseg.data.dataset import Dataset, open_dataset, read_sample, read_truth
from cfnseg.data.formats.class_folders import ImageSet, open_images
from cfnseg.data.labels import IGNORE, LabelMap
from cfnseg.data.predictions import find_masks, read_prediction
from cfnseg.drawing import View, changes, fitted, mask_picture, photo, shrink
from cfnseg.errors import UserError
from cfnseg.evaluation.segmentation import predicted
from cfnseg.inference.predictor import pick_device
from cfnseg.inference.settings import Inference
from cfnseg.models.weights import check_labels, load
from cfnseg.report.comparison.sides import Side

SIDES = (560, 400, 280, 160)  # longest sides to try, in pixels
# Share of an image's pixels by which a prediction made again may differ: devices round differently
CLOSE = 0.01

Predict = Callable[[Dataset, int], np.ndarray]


@dataclass(frozen=True)
class Shown:
    """RGB (H, W, 3) uint8, truth and both predictions (H, W) uint8 train ids; None = not found."""

    name: str
    image: np.ndarray
    truth: np.ndarray
    a: np.ndarray | None
    b: np.ndarray | None


@dataclass
class Pictures:
    """The images to show, and a line for each that is missing."""

    shown: list[Shown] = field(default_factory=list)
    labels: LabelMap | None = None
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Strip:
    """One image of the page.

    Attributes:
        row: of compare.json.
        views: its pictures.
        fixed, broken: share of the counted pixels in 0..1 that A has wrong and B right, and the
            reverse; None if unknown.
    """

    row: dict[str, Any]
    views: list[View]
    fixed: float | None
    broken: float | None


def strips(shown: list[Shown], rows: dict[str, dict[str, Any]], labels: LabelMap) -> list[Strip]:
    """A strip for each image.

    Args:
        shown: the images.
        rows: the row of compare.json of each image, by name.
        labels: the classes, for their colours.
    """
    return fitted(lambda side: [strip(picture, rows[picture.name], labels, side)
                                for picture in shown],
                  SIDES, lambda drawn: sum(len(v.picture or "") for s in drawn for v in s.views))


def strip(picture: Shown, row: dict[str, Any], labels: LabelMap, side: int) -> Strip:
    """One strip with its longest side at most ``side`` pixels."""
    image, truth, change, shares = shrink(picture.image, side), picture.truth, None, (None, None)
    masks = [None if mask is None else mask_picture(shrink(mask, side, ids=True), labels)
             for mask in (truth, picture.a, picture.b)]
    if picture.a is not None and picture.b is not None:
        counted, right, now = truth != IGNORE, truth == picture.a, truth == picture.b
        both = counted & now & ~right, counted & right & ~now
        shares = tuple(float(mask.sum() / max(1, counted.sum())) for mask in both)
        small = (shrink(mask.astype(np.uint8), side, ids=True) > 0 for mask in both)
        change = changes(image, *small)
    headings = ("image", "truth", "A", "B", "B fixes and breaks")
    views = [View(heading, view, "not available", image.shape[1], image.shape[0])
             for heading, view in zip(headings, (photo(image), *masks, change))]
    return Strip(row, views, *shares)


def find_pictures(a: Side, b: Side, names: list[str]) -> Pictures:
    """The images ``names`` of two segmentations; ``missing`` has the reason for each failure."""
    found = Pictures()
    try:
        data = _first_that_opens(a, b, names, open_dataset)
    except UserError as error:
        found.missing.append(f"No picture: {error}")
        return found
    found.labels = data.labels
    predict: dict[str, Predict] = {}
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
        for letter, again in predict.items():
            counts = (a if letter == "A" else b).images[name]["counts"]
            try:
                masks[letter] = _as_counted(again(data, index), truth, counts)
            except UserError as error:
                found.missing.append(f"No prediction of {letter} for {name}: {error}")
        found.shown.append(Shown(name, image, truth, masks["A"], masks["B"]))
    return found


def find_images(a: Side, b: Side, names: list[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """RGB (H, W, 3) uint8 by name of two classifications, and the reasons where there is none."""
    if not names:
        return {}, []
    try:
        data = _first_that_opens(a, b, names, functools.partial(open_images, classes=a.classes))
        return {name: data.image(data.names.index(name)) for name in names}, []
    except UserError as error:
        return {}, [f"No picture: {error}"]


def _first_that_opens(a: Side, b: Side, names: list[str],
                      opener: Callable[[str, str, str], Any]) -> Dataset | ImageSet:
    """The data set with ``names`` by either side's report or its run's settings."""
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
        problem = f"no image {lacking[0]}" if lacking else "other classes"
        reasons.append(f"{where} has {problem}")
    nothing = "neither the reports nor their runs' settings name the data"
    raise UserError("; ".join(dict.fromkeys(reasons)) or nothing)


def _places(side: Side) -> list[tuple[str, str, str]]:
    """Name, root and split of the data to try, the likeliest first.

    A run scores its own data; a report may name another root.
    """
    facts, data = side.facts, side.settings.get("data")
    own = [(data["name"], data["root"], data["train_split" if data["holdout"] else "val_split"])
           ] if data else []
    named = [(facts["data"], facts.get("root", ""), facts["split"])
             ] if {"data", "split"} <= facts.keys() else []
    return named + own if "root" in facts else own + named


def predictor_of(side: Side, data: Dataset) -> Predict:
    """How to get a side's masks again: from its folder of masks, else from its weights.

    Raises:
        UserError: neither is there.
    """
    facts = side.facts
    if "predictions" in facts:
        folder = Path(facts["predictions"])

        def read(data: Dataset, index: int) -> np.ndarray:
            path = find_masks(folder, [data.names[index]])[0][0]
            return read_prediction(path, data.labels, read_truth(data, index).shape)

        find_masks(folder, [])  # fails at once if the folder is gone
        return read
    named = Path(facts.get("weights", "best.safetensors"))
    places = ([side.run / named.name] if side.run else []) + [named]
    weights = next((path for path in places if path.is_file()), None)
    if weights is None:
        tried = " or ".join(dict.fromkeys(map(str, places)))
        raise UserError(f"its weights are no longer at {tried}")
    loaded = load(weights)
    check_labels(loaded, data.labels, weights, "the data")
    model = loaded.model.to(pick_device("auto"))
    settings = {f.name: ast.literal_eval(facts[f.name]) for f in fields(Inference) if f.name in facts}
    return lambda data, index: predicted(model, data, index, Inference(**settings))[2]


def _check_truth(truth: np.ndarray, pixels: list[int]) -> None:
    if np.bincount(truth[truth != IGNORE], minlength=len(pixels)).tolist() != pixels:
        raise UserError("its truth is not the one that was scored; other data, or its mask has "
                        "changed since")


def _as_counted(prediction: np.ndarray, truth: np.ndarray, counts: list[list[int]]) -> np.ndarray:
    """The prediction, if the report counted it; replaced files would show something else."""
    right = truth[(truth == prediction) & (truth != IGNORE)]
    gap = np.abs(np.bincount(right, minlength=len(counts[0])) - counts[0]).sum()
    share = gap / max(1, sum(counts[1]))
    if share > CLOSE:
        raise UserError("its weights or masks have changed since: the pixels that are right differ "
                        f"by {share:.1%} of the image")
    return prediction
