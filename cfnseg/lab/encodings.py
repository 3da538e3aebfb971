"""Encodings of a frozen net's stage compared: a linear SVM's accuracy and retrieval."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import train_test_split
from sklearn.svm import LinearSVC

from cfnseg.config import Data
from cfnseg.data.formats.class_folders import ImageSet, hold_out_images, open_images
from cfnseg.data.transforms import ImageTransform
from cfnseg.errors import UserError
from cfnseg.lab.descriptors import stage_pair
from cfnseg.lab.local_codes import VLAD, BagOfWords, FisherVector, unit
from cfnseg.lab.pooled_codes import AveragePooling, CrossLayerPooling, FusedFeature
from cfnseg.models.weights import load

CELLS = 2 ** 21  # similarities ranked at once; some ten arrays of that size live together


@dataclass(frozen=True)
class Row:
    """One encoder's scores: accuracy and retrieval mAP in 0..1, and what they cost."""

    encoder: str
    size: int  # entries of a code
    accuracy: float
    retrieval: float
    seconds: float  # to fit the encoder and to encode both splits, without the net and the SVM


def linear_svm_accuracy(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray,
                        costs: Sequence[float] = (1.0,), seed: int = 0) -> float:
    """Accuracy on the test split, 0..1, of a linear one-against-rest SVM fitted to the training split.

    Args:
        train_x, test_x: (images, features) float.
        train_y, test_y: (images,) labels.
        costs: values of C. Of several, the best on a seeded fifth of the training split is taken; then all of it is fitted.
        seed: of the solver and of that fifth.

    Raises:
        ValueError: shapes do not go together.
    """
    train_x, train_y = _labelled(train_x, train_y, "train")
    test_x, test_y = _labelled(test_x, test_y, "test")
    if not costs:
        raise ValueError("costs: expected at least one")

    def fitted(x: np.ndarray, y: np.ndarray, cost: float) -> LinearSVC:
        return LinearSVC(C=cost, dual="auto", random_state=seed).fit(x, y)

    best = costs[0]
    if len(costs) > 1:
        x, held_x, y, held_y = train_test_split(train_x, train_y, test_size=0.2, random_state=seed, stratify=train_y)
        best = max(costs, key=lambda cost: fitted(x, y, cost).score(held_x, held_y))
    return float(fitted(train_x, train_y, best).score(test_x, test_y))


def retrieval_map(database_x: np.ndarray, database_y: np.ndarray, queries_x: np.ndarray | None = None,
                  queries_y: np.ndarray | None = None) -> float:
    """Mean over the queries of the average precision of the database ranked by cosine similarity.

    An image is relevant if it has the query's label. Average precision is the mean, over the relevant images, of the precision at
    their rank; images of one similarity share the last rank of theirs, as in scikit-learn.

    Args:
        database_x: (images, features) float; the length of a vector does not matter.
        database_y: (images,) labels.
        queries_x, queries_y: the queries. None: each image of the database asks for the others.

    Returns:
        0..1. Queries without a relevant image are left out; nan if none is left.

    Raises:
        ValueError: shapes do not go together, or queries without their labels.
    """
    database_x, database_y = _labelled(database_x, database_y, "database")
    if (queries_x is None) != (queries_y is None):
        raise ValueError("queries_x and queries_y: expected both or neither")
    alone = queries_x is None
    queries_x, queries_y = (database_x, database_y) if alone else _labelled(queries_x, queries_y, "queries")
    if queries_x.shape[1] != database_x.shape[1]:
        raise ValueError(f"queries_x: expected {database_x.shape[1]} features as in the database, got {queries_x.shape[1]}")
    database = unit(database_x).T
    scores, step = [], max(1, CELLS // len(database_x))
    for start in range(0, len(queries_x), step):
        similarity = unit(queries_x[start: start + step]) @ database
        relevant = queries_y[start: start + step, None] == database_y
        if alone:  # the query itself goes to the end, where an irrelevant image takes nothing away
            own = np.arange(len(similarity))
            similarity[own, start + own], relevant[own, start + own] = -np.inf, False
        scores.append(_average_precisions(similarity, relevant))
    each = np.concatenate(scores)
    each = each[~np.isnan(each)]
    return float(each.mean()) if len(each) else float("nan")


def _average_precisions(similarity: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """(queries,) average precisions, nan without a relevant image, from (queries, images) similarities and bool relevance."""
    order = np.argsort(-similarity, 1)
    ranked, hit = np.take_along_axis(similarity, order, 1), np.take_along_axis(relevant, order, 1)
    count = ranked.shape[1]
    last = np.full(ranked.shape, count - 1, np.int32)  # of each rank, the last rank of the same similarity
    last[:, :-1] = np.where(ranked[:, 1:] != ranked[:, :-1], np.arange(count - 1, dtype=np.int32), count - 1)
    last = np.minimum.accumulate(last[:, ::-1], 1)[:, ::-1]
    precision = np.take_along_axis(np.cumsum(hit, 1, dtype=np.int32), last, 1) / (last + 1)
    total = hit.sum(1)
    return np.where(total > 0, (precision * hit).sum(1) / np.maximum(total, 1), np.nan)


def compare_encoders(encoders: Mapping[str, BaseEstimator], train: tuple, test: tuple, costs: Sequence[float] = (1.0,),
                     seed: int = 0) -> list[Row]:
    """Fit each encoder to the training split, and score the codes by a linear SVM and by retrieval.

    Retrieval is leave-one-out within the test split, which the encoder has not seen.

    Args:
        encoders: name -> encoder; clones of them are fitted.
        train, test: (inputs, labels) each. Inputs are what every encoder takes, or a mapping from an encoder's name to its own,
            as stages, pairs and fused features differ.
        costs, seed: as in `linear_svm_accuracy`.

    Returns:
        A row an encoder, in their order.

    Raises:
        ValueError: a mapping of inputs lacks an encoder, or what the encoders and scores raise.
    """
    rows = []
    for name, encoder in encoders.items():
        began = time.perf_counter()
        encoder = clone(encoder)
        train_x = encoder.fit(_inputs(train[0], name), train[1]).transform(_inputs(train[0], name))
        test_x = encoder.transform(_inputs(test[0], name))
        seconds = time.perf_counter() - began
        accuracy = linear_svm_accuracy(train_x, train[1], test_x, test[1], costs, seed)
        rows.append(Row(name, train_x.shape[1], accuracy, retrieval_map(test_x, test[1]), seconds))
    return rows


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; scores in per cent."""
    lines = ["| encoder | entries | linear SVM accuracy (%) | retrieval mAP (%) | seconds |", "|:--|--:|--:|--:|--:|"]
    for row in rows:
        name = row.encoder.replace("|", "\\|")
        lines.append(f"| {name} | {row.size:,} | {100 * row.accuracy:.2f} | {100 * row.retrieval:.2f} | {row.seconds:.1f} |")
    return "\n".join(lines) + "\n"


def _inputs(inputs: object, name: str) -> object:
    if not isinstance(inputs, Mapping):
        return inputs
    if name not in inputs:
        raise ValueError(f"inputs: nothing for the encoder {name!r}, only for {', '.join(map(repr, inputs))}")
    return inputs[name]


def _labelled(x: np.ndarray, y: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or not len(x) or x.dtype.kind != "f":
        raise ValueError(f"{name}_x: expected a float array (images, features), got {x.dtype} {x.shape}")
    if y.shape != x.shape[:1]:
        raise ValueError(f"{name}_y: expected ({len(x)},) labels, one for each image of {name}_x, got {y.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name}_x: not finite")
    return x.astype(np.promote_types(x.dtype, np.float32), copy=False), y


BATCH = 100


def compare_on_weights(weights: Path, root: str, train_images: int, test_images: int, stage: int = 1, dimensions: int = 64,
                       seed: int = 0) -> list[Row]:
    """Compare codes of the net's images: pooled, BoW, VLAD, Fisher vector, cross-layer, and the fused CFN feature.

    Args:
        weights: of an image-level CFN in EFLP order.
        root: the data set that it was trained on; its training split is used.
        train_images: images that encoders and SVM are fitted to, the same number of every class.
        test_images: others, of those that the net's training held out, that are scored.
        stage: index of the encoder's stage whose places are the local descriptors; cross-layer pooling takes the next as well.
        dimensions: of local descriptors after PCA.
        seed: of k-means, mixtures and SVM.

    Raises:
        UserError: weights that have no fused feature or other classes, or too few images.
    """
    loaded = load(weights)
    net = loaded.model
    if loaded.settings.level != "image" or loaded.settings.name != "cfn" or loaded.settings.order != "eflp":
        raise UserError(f"{weights}: expected an image-level CFN with early fusion, which has a fused feature", code=2)
    if not 0 <= stage < len(net.encoder.channels) - 1:
        raise UserError(f"--stage {stage}: the net has stages 0 to {len(net.encoder.channels) - 1}, and one must follow", code=2)
    if int(loaded.score.get("held_out", 0)) < test_images:
        raise UserError(f"{weights}: its training held out {loaded.score.get('held_out', 0)} images, fewer than --test-images "
                        f"{test_images}; a net cannot be scored on what it was trained on", code=2)
    whole = open_images(str(loaded.score["data"]), root, "train", classes=loaded.labels.names)
    rest, held = hold_out_images(whole, str(loaded.score["held_out"]))  # as the training did
    held = hold_out_images(held, str(test_images))[1] if test_images < len(held.names) else held
    chosen = hold_out_images(rest, str(train_images))[1]
    settings = Data(crop=tuple(loaded.score.get("crop", (224, 224))))
    splits = [(_pixels(part, settings), part.targets) for part in (chosen, held)]
    inputs = [_stage_inputs(net, images, stage) for images, _ in splits]
    own = {"dimensions": dimensions, "seed": seed}
    encoders = {"average pooling": AveragePooling(), "bag of words": BagOfWords(256, **own), "VLAD": VLAD(64, **own),
                "Fisher vector": FisherVector(32, **own), "cross-layer pooling": CrossLayerPooling(dimensions=32, seed=seed),
                "fused CFN feature": FusedFeature()}
    train, test = (({name: made["pair" if "cross" in name else "fused" if "fused" in name else "stage"] for name in encoders}, labels)
                   for made, (_, labels) in zip(inputs, splits))
    return compare_encoders(encoders, train, test, seed=seed)


def _pixels(images: ImageSet, settings: Data) -> np.ndarray:
    """(N, H, W, 3) uint8 at the size that the net was trained with."""
    transform = ImageTransform(settings, train=False)
    return np.stack([transform(images.image(i), images.targets[i], name).image.transpose(1, 2, 0) for i, name in enumerate(images.names)])


def _stage_inputs(net: torch.nn.Module, images: np.ndarray, stage: int) -> dict[str, object]:
    fused = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            fused.append(net.fused(torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2)).numpy())
    pair = stage_pair(net.encoder, images, stage, BATCH)
    return {"stage": pair[0], "pair": pair, "fused": np.concatenate(fused)}
