"""Inference on image files: a mask and an overlay of each; a bad file is named and skipped."""

from __future__ import annotations

import functools
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from torch import nn

from cfnseg.data.bands import Bands, as_picture, described
from cfnseg.data.files import read_bytes, rgb_image
from cfnseg.data.geotiff import georeference, write_placed
from cfnseg.data.labels import LabelMap
from cfnseg.data.layers import layer_names, write_layers
from cfnseg.data.stored_bands import decode_bands
from cfnseg.drawing import layers_overlay, overlay, write_jpeg
from cfnseg.errors import UserError
from cfnseg.inference.explanation import Explanation, SplitCFN, explain
from cfnseg.inference.explanation_picture import explanation_picture
from cfnseg.inference.memory import DRAWING, resident, through_windows
from cfnseg.inference.onnx_predictor import OnnxPredictor
from cfnseg.inference.predictor import Prediction, Predictor
from cfnseg.inference.probability_files import write_confidence, write_probabilities
from cfnseg.inference.settings import PLAIN
from cfnseg.inference.windows import Strip
from cfnseg.storage import write_atomic

T = TypeVar("T")
WAITING = 1  # predictions that may wait to be written: more would be memory and nothing else
PROBABILITIES = "_probabilities.npy"
# what the names of results that are pictures end with
MASK, PLACED, OVERLAY, EXPLAINED, CONFIDENCE = ENDS = (
    "_mask.png",
    "_mask.tif",
    "_overlay.jpg",
    "_explain.jpg",
    "_confidence.png",
)


class Extra(NamedTuple):
    """Further files of an image: ``<stem>_explain.jpg``, see `explanation_picture`;
    ``<stem>_confidence.png``, ``<stem>_probabilities.npy``, see
    `cfnseg.inference.probability_files`."""

    explanation: bool = False
    confidence: bool = False
    probabilities: bool = False


NOTHING = Extra()


class Photograph(NamedTuple):
    """An image as the network takes it, and the georeference of its file, if it has one."""

    image: np.ndarray
    place: ImageFileDirectory_v2 | None


class Result(NamedTuple):
    """What is written of an image; ``logits`` are empty unless its probabilities are wanted."""

    path: Path
    name: str
    photograph: Photograph
    prediction: Prediction
    logits: list[Strip]
    explanation: Explanation | None


def infer_images(
    files: list[Path],
    names: list[str],
    out: Path,
    predictor: Predictor | OnnxPredictor,
    explainable: nn.Module | None,
    extra: Extra,
) -> int:
    """Segment images and write their results, see `cfnseg.inference.sources.infer_files`.

    Args:
        files: images.
        names: of their results.
        out: a folder.
        predictor: a network, or an exported file.
        explainable: the same network, unfolded, to explain masks with; None = explain none.
        extra: further files.

    Returns:
        The number of files that failed.
    """
    inference, network = PLAIN, None  # of an exported file nothing is known
    if isinstance(predictor, Predictor):
        # the larger one's memory is estimated
        network = SplitCFN(explainable) if explainable else predictor.model
        inference = predictor.inference
    process = resident()
    failed, busy, began = 0, 0.0, time.perf_counter()
    writing: deque[Future] = deque()
    with ThreadPoolExecutor(2) as pool:
        read = functools.partial(read_photograph, predictor.bands)
        for path, name, reading in ahead(pool, read, files, names):
            try:
                photograph = reading.result()
                image = photograph.image
            except UserError as error:
                failed += 1
                print(f"error: {error}", file=sys.stderr)
                continue
            before = process + image.nbytes * (len(files) > 1)  # the next one, read meanwhile
            message = network and through_windows(
                network, image.shape[:2], inference, before, DRAWING * 3 * image[..., 0].size
            )
            if message:
                print(f"{path}: {message}", flush=True)
            while writing and (message or len(writing) > WAITING or writing[0].done()):
                failed += _finished(writing.popleft())
            start = time.perf_counter()
            logits: list[Strip] = []
            try:
                prediction = predictor(image, logits.append if extra.probabilities else None)
            except UserError as error:  # of another size than an exported file takes
                failed += 1
                print(f"error: {path}: {error}", file=sys.stderr)
                continue
            explanation = None
            if explainable:
                tensor = torch.from_numpy(image).permute(2, 0, 1)
                explanation = explain(explainable, tensor, inference)
            busy += time.perf_counter() - start
            result = Result(path, name, photograph, prediction, logits, explanation)
            writing.append(pool.submit(_write, result, out, predictor.labels, extra.confidence))
        failed += sum(_finished(future) for future in writing)
    seconds = time.perf_counter() - began
    if (done := len(files) - failed) > 1:
        print(
            f"{done} images in {seconds:.1f} s, {done / seconds:.1f} images/s; "
            f"the network computed {busy / seconds:.0%} of the time"
        )
    return failed


def read_photograph(bands: Bands | None, path: Path) -> Photograph:
    """An image file, as RGB or with its bands; UserError if it cannot be read or has other ones."""
    data = read_bytes(path)
    if bands is None:
        return Photograph(rgb_image(data, path), georeference(data))
    image = decode_bands(data, path)
    if not bands.fit(image):
        found = described(image.shape[2], image.dtype)
        raise UserError(f"{path}: it has {found}, and the weights take {bands}")
    return Photograph(image, georeference(data))


def ahead(
    pool: ThreadPoolExecutor,
    read: Callable[[Path], T],
    files: list[Path],
    names: list[str],
) -> Iterator[tuple]:
    """(file, its results' name, the future of what ``read`` gives), with the next file being read
    meanwhile."""
    following = None
    for path, name in zip(files, names):
        current, following = following, (path, name, pool.submit(read, path))
        if current:
            yield current
    yield following


def _shares(prediction: Prediction, labels: LabelMap) -> str:
    """The classes of 1 % of the pixels and more, the largest first."""
    if prediction.mask.ndim == 3:
        shares = prediction.mask.mean((1, 2))
    else:
        shares = np.bincount(prediction.mask.ravel(), minlength=len(labels)) / prediction.mask.size
    order = [c for c in np.argsort(-shares, kind="stable") if shares[c] >= 0.01]
    return "  ".join(f"{labels.names[c]} {shares[c]:.0%}" for c in order)


def _write(result: Result, out: Path, labels: LabelMap, confidence: bool) -> str:
    """Write mask, overlay and what was asked for besides; returns the message."""
    path, name, (image, place), prediction, logits, explanation = result
    image, picture = as_picture(image), out / f"{name}{OVERLAY}"
    mask = out / f"{name}{PLACED if place else MASK}"

    def write_mask(temporary: Path) -> None:
        if place:
            write_placed(temporary, labels.decode(prediction.mask), labels.palette(), place)
        else:
            labels.write(temporary, prediction.mask)

    if prediction.mask.ndim == 3:  # of sigmoid outputs, a file for each class
        mask = out / name
        if place:
            for own, layer in zip(layer_names(labels), prediction.mask):
                gray = np.uint8(255) * layer
                write = functools.partial(write_placed, ids=gray, palette=None, place=place)
                write_atomic(mask / f"{own}.tif", write)
        else:
            write_layers(mask, prediction.mask, labels)
        drawn = layers_overlay(image, prediction.mask.transpose(1, 2, 0), labels)
        files = ", ".join(f"{name}{'.tif' if place else '.png'}" for name in layer_names(labels))
        written = f"{mask}/ ({files})"
    else:
        write_atomic(mask, write_mask)
        drawn, written = overlay(image, prediction.mask, labels), str(mask)
    write_atomic(picture, lambda temporary: write_jpeg(temporary, drawn))
    likely = [
        f"{name} {chance:.2f}" for name, chance in prediction.present.items() if chance >= 0.5
    ]
    lines = [
        f"{path} -> {written}, {picture.name}",
        f"  in the mask: {_shares(prediction, labels)}",
    ]
    if prediction.present:
        present = "  ".join(likely) or "no class with probability 0.5"
        lines.append(f"  by the image head: {present}")
    if confidence:
        write_confidence(out / f"{name}{CONFIDENCE}", prediction.confidence)
        lines[0] += f", {name}{CONFIDENCE}"
    if logits:
        write_probabilities(out / f"{name}{PROBABILITIES}", logits, image.shape[:2])
        lines[0] += f", {name}{PROBABILITIES}"
    if explanation:
        shown = explanation_picture(image, prediction.mask, explanation, labels)
        write_atomic(out / f"{name}{EXPLAINED}", lambda temporary: write_jpeg(temporary, shown))
        parts = np.bincount(explanation.deciding.ravel(), minlength=len(explanation.names))
        shares = ", ".join(
            f"{who} {100 * n / parts.sum():.1f} %" for who, n in zip(explanation.names, parts) if n
        )
        lines[0] += f", {name}{EXPLAINED}"
        lines.append(f"  decided by: {shares}")
    return "\n".join(lines)


def _finished(writing: Future) -> int:
    """Print the message of a written file; returns 1 if it could not be written."""
    try:
        print(writing.result(), flush=True)
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
