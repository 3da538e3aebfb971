"""The images that changed most, with both predictions, found or made again and checked."""

from __future__ import annotations

import ast
import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cfnseg.data.bands import as_picture
from cfnseg.data.dataset import Dataset, open_dataset, read_truth
from cfnseg.data.formats.class_folders import ImageSet, open_images
from cfnseg.data.labels import IGNORE, LabelMap
from cfnseg.data.predictions import find_masks, read_prediction
from cfnseg.drawing import View, changes, fitted, mask_picture, photo, shrink
from cfnseg.errors import UserError
from cfnseg.evaluation.segmentation import predicted
from cfnseg.inference.predictor import pick_device
from cfnseg.inference.settings import Inference
from cfnseg.models.hub_file import is_hub_name
from cfnseg.models.weights import check_labels, load
from cfnseg.report.comparison.sides import Side

SIDES = (560, 400, 280, 160)  # longest sides to try, in pixels
# Share of an image's pixels by which a prediction made again may differ: devices round differently
CLOSE = 0.01

Data = TypeVar("Data", Dataset, ImageSet)
Predict = Callable[[Dataset, int], np.ndarray]
# RGB (H, W, 3) uint8, truth (H, W) uint8 train ids, and the predictions that were found, by A or B
Shown = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]


def strips(
    shown: dict[str, Shown], rows: dict[str, dict[str, Any]], labels: LabelMap
) -> list[dict[str, Any]]:
    """The pictures of each image, as the page shows them.

    Args:
        shown: the images by name.
        rows: of compare.json, by name.
        labels: the classes, for their colours.

    Returns:
        row, views, and as shares of the counted pixels in 0..1 fixed (A wrong, B right) and broken
        (A right, B wrong), or None if a prediction is missing.
    """
    return fitted(
        lambda side: [
            {"row": rows[name], **_strip(*found, labels, side)} for name, found in shown.items()
        ],
        SIDES,
        lambda drawn: sum(len(v.picture or "") for s in drawn for v in s["views"]),
    )


def _strip(
    image: np.ndarray, truth: np.ndarray, masks: dict[str, np.ndarray], labels: LabelMap, side: int
) -> dict[str, Any]:
    small = shrink(image, side)
    pictures = {
        "image": photo(small),
        "truth": None,
        "A": None,
        "B": None,
        "B fixes and breaks": None,
    }
    for heading, mask in {"truth": truth, **masks}.items():
        pictures[heading] = mask_picture(shrink(mask, side, ids=True), labels)
    found: dict[str, Any] = {"fixed": None, "broken": None}
    if len(masks) == 2:
        counted, old, new = truth != IGNORE, truth == masks["A"], truth == masks["B"]
        both = {"fixed": counted & new & ~old, "broken": counted & old & ~new}
        found = {key: float(mask.sum() / max(1, counted.sum())) for key, mask in both.items()}
        pictures["B fixes and breaks"] = changes(
            small, *(shrink(mask.astype(np.uint8), side, ids=True) > 0 for mask in both.values())
        )
    return {
        "views": [
            View(heading, picture, "not available", small.shape[1], small.shape[0])
            for heading, picture in pictures.items()
        ],
        **found,
    }


def find_pictures(
    a: Side, b: Side, names: list[str]
) -> tuple[dict[str, Shown], LabelMap | None, list[str]]:
    """The images ``names`` of two segmentations, their labels, and why something is missing."""
    missing: list[str] = []
    with _noted(missing, "No picture"):
        channels = max(side.settings.get("data", {}).get("channels", 0) for side in (a, b))
        opener = functools.partial(open_dataset, channels=channels)
        data = _first_that_opens(a, b, names, opener)
    if missing:
        return {}, None, missing
    sides, predict, shown = {"A": a, "B": b}, {}, {}
    for letter, side in sides.items():
        with _noted(missing, f"No prediction of {letter}"):
            predict[letter] = predictor_of(side, data)
    for name in names:
        index, masks = data.names.index(name), {}
        with _noted(missing, f"No picture of {name}"):
            image, truth = as_picture(data.image(index)), read_truth(data, index)
            _check_truth(truth, a.images[name]["counts"][1])
            shown[name] = image, truth, masks
        for letter in predict if name in shown else ():
            with _noted(missing, f"No prediction of {letter} for {name}"):
                counts = sides[letter].images[name]["counts"]
                masks[letter] = _as_counted(predict[letter](data, index), truth, counts)
    return shown, data.labels, missing


@contextlib.contextmanager
def _noted(missing: list[str], what: str) -> Iterator[None]:
    """Turn a UserError into a line of ``missing``."""
    try:
        yield
    except UserError as error:
        missing.append(f"{what}: {error}")


def find_images(a: Side, b: Side, names: list[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """RGB (H, W, 3) uint8 by name of two classifications, and the reasons where there is none."""
    found: dict[str, np.ndarray] = {}
    missing: list[str] = []
    with _noted(missing, "No picture"):
        opener = functools.partial(open_images, classes=a.classes)
        data = _first_that_opens(a, b, names, opener) if names else None
        found = {name: data.image(data.names.index(name)) for name in names}
    return found, missing


def _first_that_opens(
    a: Side, b: Side, names: list[str], opener: Callable[[str, str, str], Data]
) -> Data:
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
    own = []
    if data:
        held = data["holdout"] or data.get("fold")
        own = [(data["name"], data["root"], data["train_split" if held else "val_split"])]
    named = (
        [(facts["data"], facts.get("root", ""), facts["split"].partition(", ")[0])]
        if {"data", "split"} <= facts.keys()
        else []
    )
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
    weights = next((path for path in places if path.is_file() or is_hub_name(path)), None)
    if weights is None:
        tried = " or ".join(dict.fromkeys(map(str, places)))
        raise UserError(f"its weights are no longer at {tried}")
    loaded = load(weights)
    check_labels(loaded.labels, data.labels, weights, "the data")
    model = loaded.model.to(pick_device("auto"))
    settings = {
        f.name: ast.literal_eval(facts[f.name]) for f in fields(Inference) if f.name in facts
    }
    return lambda data, index: predicted(model, data, index, Inference(**settings))[2]


def _check_truth(truth: np.ndarray, pixels: list[int]) -> None:
    if np.bincount(truth[truth != IGNORE], minlength=len(pixels)).tolist() != pixels:
        raise UserError(
            "its truth is not the one that was scored; other data, or its mask has changed since"
        )


def _as_counted(prediction: np.ndarray, truth: np.ndarray, counts: list[list[int]]) -> np.ndarray:
    """The prediction, if the report counted it; replaced files would show something else."""
    right = truth[(truth == prediction) & (truth != IGNORE)]
    gap = np.abs(np.bincount(right, minlength=len(counts[0])) - counts[0]).sum()
    share = gap / max(1, sum(counts[1]))
    if share > CLOSE:
        raise UserError(
            "its weights or masks have changed since: the pixels that are right differ "
            f"by {share:.1%} of the image"
        )
    return prediction
