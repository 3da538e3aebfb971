"""Encoders over a stage of a trained net, compared by a linear SVM's accuracy and by retrieval."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from cfnseg.config import Data
from cfnseg.data.formats.class_folders import ImageSet, hold_out_images, open_images
from cfnseg.data.transforms import ImageTransform
from cfnseg.errors import UserError
from cfnseg.lab.descriptors import stage_pair
from cfnseg.lab.local_codes import VLAD, BagOfWords, FisherVector
from cfnseg.lab.pooled_codes import AveragePooling, CrossLayerPooling, FusedFeature
from cfnseg.models.weights import load
from cfnseg.report.text import percent, table

BATCH = 100
CELLS = 2**21  # similarities at once


@dataclass(frozen=True)
class Row:
    """One encoder's scores.

    Attributes:
        encoder: its name.
        size: entries of a code.
        accuracy, retrieval: linear SVM's accuracy and retrieval mAP in 0..1.
        seconds: to fit the encoder and to encode both splits, without the net and the SVM.
    """

    encoder: str
    size: int
    accuracy: float
    retrieval: float
    seconds: float


def linear_svm_accuracy(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    costs: Sequence[float] = (1.0,),
    seed: int = 0,
) -> float:
    """Accuracy in 0..1 on the test split of a linear one-against-rest SVM.

    Args:
        train_x, test_x: (images, features) float.
        train_y, test_y: (images,) class of each image.
        costs: values of C. The best of several on a seeded fifth of the training split is taken;
            then all of it is fitted.
        seed: of the solver and of that fifth.

    Raises:
        ValueError: shapes do not match.
    """
    train_x, train_y = _checked(train_x, train_y, "train")
    test_x, test_y = _checked(test_x, test_y, "test")
    if not costs:
        raise ValueError("costs: expected at least one")
    svm = LinearSVC(C=costs[0], dual="auto", random_state=seed)
    if len(costs) > 1:
        fifth = StratifiedShuffleSplit(1, test_size=0.2, random_state=seed)
        svm = GridSearchCV(svm, {"C": list(costs)}, cv=fifth)
    return float(svm.fit(train_x, train_y).score(test_x, test_y))


def retrieval_map(
    database_x: np.ndarray,
    database_y: np.ndarray,
    queries_x: np.ndarray | None = None,
    queries_y: np.ndarray | None = None,
) -> float:
    """Mean average precision of the database ranked by cosine similarity to each query.

    An image is relevant if it has the query's class.

    Args:
        database_x: (images, features) float of any length > 0.
        database_y: (images,) class of each image.
        queries_x, queries_y: the queries. None: each image of the database asks for the others.

    Returns:
        0..1. Queries without a relevant image are left out; nan if none is left.

    Raises:
        ValueError: shapes do not match, or queries without their classes.
    """
    database_x, database_y = _checked(database_x, database_y, "database")
    if (queries_x is None) != (queries_y is None):
        raise ValueError("queries_x and queries_y: expected both or neither")
    alone = queries_x is None
    if alone:
        queries_x, queries_y = database_x, database_y
    queries_x, queries_y = _checked(queries_x, queries_y, "queries")
    if queries_x.shape[1] != database_x.shape[1]:
        raise ValueError(
            f"queries_x: expected {database_x.shape[1]} features as in the database, "
            f"got {queries_x.shape[1]}"
        )
    queries, database = normalize(queries_x), normalize(database_x)
    scores, step = [], max(1, CELLS // len(database))
    for start in range(0, len(queries), step):
        for i, similarity in enumerate(queries[start : start + step] @ database.T, start):
            relevant = database_y == queries_y[i]
            if alone:
                similarity, relevant = np.delete(similarity, i), np.delete(relevant, i)
            if relevant.any():
                scores.append(average_precision_score(relevant, similarity))
    return float(np.mean(scores)) if scores else float("nan")


def compare_encoders(
    encoders: Mapping[str, BaseEstimator],
    train: tuple[Any, np.ndarray],
    test: tuple[Any, np.ndarray],
    seed: int = 0,
) -> list[Row]:
    """Fit each encoder to the training split; score its codes by a linear SVM and by retrieval.

    Retrieval is leave-one-out within the test split, which no encoder is fitted to.

    Args:
        encoders: name -> encoder; clones are fitted.
        train, test: inputs and (images,) classes. Inputs are common to all encoders, or a mapping
            from an encoder's name to its own, as stages, pairs and fused features differ.
        seed: as in `linear_svm_accuracy`.

    Returns:
        One row per encoder, in their order.

    Raises:
        ValueError: a mapping of inputs lacks an encoder, or an encoder or a score raises it.
    """
    rows = []
    for name, encoder in encoders.items():
        own, held = (_inputs(split[0], name) for split in (train, test))
        began = time.perf_counter()
        encoder = clone(encoder).fit(own, train[1])
        train_x, test_x = encoder.transform(own), encoder.transform(held)
        seconds = time.perf_counter() - began
        accuracy = linear_svm_accuracy(train_x, train[1], test_x, test[1], seed=seed)
        retrieval = retrieval_map(test_x, test[1])
        rows.append(Row(name, train_x.shape[1], accuracy, retrieval, seconds))
    return rows


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; scores in percent."""
    titles = ["encoder", "entries", "linear SVM accuracy (%)", "retrieval mAP (%)", "seconds"]
    cells = [
        [r.encoder, f"{r.size:,}", percent(r.accuracy), percent(r.retrieval), f"{r.seconds:.1f}"]
        for r in rows
    ]
    return "\n".join(table(titles, cells)) + "\n"


def _inputs(inputs: object, name: str) -> object:
    if not isinstance(inputs, Mapping):
        return inputs
    if name not in inputs:
        known = ", ".join(map(repr, inputs))
        raise ValueError(f"inputs: nothing for the encoder {name!r}, only for {known}")
    return inputs[name]


def _checked(x: np.ndarray, y: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or not len(x) or x.dtype.kind != "f":
        raise ValueError(
            f"{name}_x: expected a float array (images, features), got {x.dtype} {x.shape}"
        )
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"{name}_y: expected ({len(x)},) labels, one for each image of {name}_x, got {y.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError(f"{name}_x: not finite")
    return x.astype(np.promote_types(x.dtype, np.float32), copy=False), y


def compare_on_weights(
    weights: Path,
    root: str,
    train_images: int,
    test_images: int,
    stage: int = 1,
    dimensions: int = 64,
    seed: int = 0,
) -> list[Row]:
    """Compare codes of a net's images with its fused feature.

    Args:
        weights: of a classification CFN in EFLP order.
        root: the data set of its training; its training split is used.
        train_images: images that encoders and SVM are fitted to, equally many of each class.
        test_images: scored images, which the net's training held out.
        stage: index of the encoder's stage whose places are the local descriptors; cross-layer
            pooling takes the next stage as well.
        dimensions: of local descriptors after PCA.
        seed: of k-means, mixtures and SVM.

    Raises:
        UserError: weights without a fused feature or of other classes, or too few images.
    """
    loaded = load(weights)
    net, settings, score = loaded.model, loaded.settings, loaded.score
    if settings.level != "image" or settings.name != "cfn" or settings.order != "eflp":
        raise UserError(
            f"{weights}: expected an image-level CFN with early fusion, which has a fused feature",
            code=2,
        )
    last = len(net.encoder.channels) - 1
    if not 0 <= stage < last:
        raise UserError(
            f"--stage {stage}: the net has stages 0 to {last}, and one must follow", code=2
        )
    held_out = score.get("held_out", 0)
    if int(held_out) < test_images:
        raise UserError(
            f"{weights}: its training held out {held_out} images, fewer than --test-images "
            f"{test_images}; a net cannot be scored on what it was trained on",
            code=2,
        )
    whole = open_images(str(score["data"]), root, "train", classes=loaded.labels.names)
    rest, held = hold_out_images(whole, str(held_out))  # as the training did
    if test_images < len(held.names):
        held = hold_out_images(held, str(test_images))[1]
    chosen = hold_out_images(rest, str(train_images))[1]
    settings = Data(crop=tuple(score.get("crop", (224, 224))))
    own = {"dimensions": dimensions, "seed": seed}
    encoders = {
        "average pooling": AveragePooling(),
        "bag of words": BagOfWords(256, **own),
        "VLAD": VLAD(64, **own),
        "Fisher vector": FisherVector(32, **own),
        "cross-layer pooling": CrossLayerPooling(dimensions=32, seed=seed),
        "fused CFN feature": FusedFeature(),
    }
    splits = []
    for part in (chosen, held):
        images = _pixels(part, settings)
        pair = stage_pair(net.encoder, images, stage, BATCH)
        inputs: dict[str, object] = dict.fromkeys(encoders, pair[0])
        inputs |= {"cross-layer pooling": pair, "fused CFN feature": _fused(net, images)}
        splits.append((inputs, part.targets))
    return compare_encoders(encoders, *splits, seed=seed)


def _pixels(images: ImageSet, settings: Data) -> np.ndarray:
    """(N, H, W, 3) uint8 at the size of the net's training."""
    transform = ImageTransform(settings, train=False)
    samples = (
        transform(images.image(i), images.targets[i], name) for i, name in enumerate(images.names)
    )
    return np.stack([sample.image.transpose(1, 2, 0) for sample in samples])


def _fused(net: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        parts = torch.from_numpy(images).permute(0, 3, 1, 2).split(BATCH)
        return torch.cat([net.fused(part) for part in parts]).numpy()
