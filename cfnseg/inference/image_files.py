"""Inference on files: a mask and an overlay for each image; a bad file is named and skipped."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from cfnseg.data.files import IMAGE_TYPES, list_images, note_left_out, read_image
from cfnseg.data.labels import LabelMap
from cfnseg.drawing import overlay, write_jpeg
from cfnseg.errors import UserError
from cfnseg.inference.explanation import Explanation, SplitCFN, check_explainable, explain
from cfnseg.inference.explanation_picture import explanation_picture
from cfnseg.inference.memory import resident, through_windows
from cfnseg.inference.onnx_predictor import OnnxPredictor
from cfnseg.inference.predictor import Prediction, Predictor
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.models.weights import load
from cfnseg.storage import write_atomic

WAITING = 1  # predictions that may wait to be written: more would be memory and nothing else
MASK, OVERLAY, EXPLAINED = ENDS = (
    "_mask.png",
    "_overlay.jpg",
    "_explain.jpg",
)  # what results' names end with
DRAWING = 3  # pictures of the image's size that exist at once while an overlay is drawn and written


def image_files(paths: Iterable[Path]) -> list[Path]:
    """The paths with each folder replaced by the images in it, sorted. A missing path stays, to be
    named as it is read.

    Earlier results in a folder are left out, with a line on it: a mask or another result whose
    image, or another result of it, lies there as well. A result that is given by its own path is
    an image like others.
    """
    found = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        images, others = list_images(path)
        note_left_out(path, others)
        results = set(earlier_results(images))
        if results:
            print(
                f"{path}: {len(results)} earlier results (such as {min(results).name}) are left out"
            )
        found += [p for p in images if p not in results]
    if not found:
        raise UserError(f"no image (*{' *'.join(IMAGE_TYPES)}) in {', '.join(map(str, paths))}")
    return found


def earlier_results(images: list[Path]) -> list[Path]:
    """The images of one folder that are results of this module."""
    present = {p.name for p in images}
    origins = {name for p in images for name in (p.stem, p.name, f"{p.parent.name}_{p.name}")}
    return [
        path
        for path in images
        for end in ENDS
        if path.name.endswith(end)
        and (
            (origin := path.name.removesuffix(end)) in origins
            or any(origin + other in present for other in ENDS if other != end)
        )
    ]


def result_names(files: list[Path]) -> list[str]:
    """The name of each file's results: its stem, with suffix and folder where stems are equal.

    Raises UserError (usage) if even those are the same, as for a file given twice.
    """
    names = [f.stem for f in files]
    for longer in (lambda f: f.name, lambda f: f"{f.parent.name}_{f.name}"):
        # on some systems names that differ by case alone are one file
        count = Counter(map(str.casefold, names))
        names = [longer(f) if count[name.casefold()] > 1 else name for f, name in zip(files, names)]
    if twice := [name for name, n in Counter(map(str.casefold, names)).items() if n > 1]:
        raise UserError(
            f"{len(twice)} results would overwrite each other, first {twice[0]}; "
            "give each image once",
            code=2,
        )
    return names


def infer_files(
    paths: Iterable[Path],
    weights: Path,
    out: Path,
    device: str = "auto",
    inference: Inference = PLAIN,
    compile: bool = False,
    explained: bool = False,
) -> int:
    """Segment files and write the masks. Files are read and written in threads while the network
    computes.

    Args:
        paths: images and folders.
        weights: a weights file, or a file that `cfnseg export` wrote (.onnx).
        out: a folder, none of ``paths``; gets ``<stem>_mask.png`` (8-bit palette PNG of raw ids,
            exactly the image's size) and ``<stem>_overlay.jpg``; `result_names` says what images
            that share a stem get.
        device: "auto", "cpu" or "cuda".
        inference: windows, scales, mirroring. What an image that goes through windows will need is
            printed before it does.
        compile: see `Predictor`.
        explained: write ``<stem>_explain.jpg`` too, see `explanation_picture`.

    Returns:
        The number of files that failed; each is named on stderr. The images per second are printed
        last, with the share of
        the time in which the network computed: what is left of it was spent in waiting for files.

    Raises:
        UserError: no images, weights that cannot be used or explained, or results that would lie
            among the images or overwrite each other.
    """
    paths, out = list(paths), Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(
            f"--out {out} is a file; expected a folder, or one that can be made", code=2
        )
    if any(p.is_dir() and p.resolve() == out.resolve() for p in paths):
        raise UserError(
            f"--out {out} is a folder of the images: masks among them would be taken for images "
            f"later; give another, such as {out / 'out'}",
            code=2,
        )
    if explained and compile:
        raise UserError("--explain takes the network as it is; leave out --compile", code=2)
    files = image_files(paths)
    names = result_names(files)
    predictor: Predictor | OnnxPredictor
    network = whole = None  # of an exported file there is none
    if weights.suffix == ".onnx":
        if compile or explained:
            raise UserError(f"{weights}: --compile and --explain take a weights file", code=2)
        predictor = OnnxPredictor(weights, device, inference)
    else:
        loaded = load(weights)
        predictor = Predictor(loaded, device, inference, compile)
        network, whole = predictor.model, loaded.model
        if explained:
            check_explainable(whole, inference)
            whole.to(predictor.device, memory_format=torch.channels_last)
            network = SplitCFN(whole)  # whose memory is the larger
    process = resident()
    print(f"weights: {weights} ({', '.join(predictor.labels.names)}) on {predictor.device.type}")
    failed, busy, began = 0, 0.0, time.perf_counter()
    writing: deque[Future] = deque()
    with ThreadPoolExecutor(2) as pool:
        for path, name, reading in ahead(pool, read_image, files, names):
            try:
                image = reading.result()
            except UserError as error:
                failed += 1
                print(f"error: {error}", file=sys.stderr)
                continue
            before = process + image.size * (len(files) > 1)  # the next one, read meanwhile
            message = network and through_windows(
                network, image.shape[:2], inference, before, DRAWING * image.size
            )
            if message:
                print(f"{path}: {message}", flush=True)
            while writing and (message or len(writing) > WAITING or writing[0].done()):
                failed += _finished(writing.popleft())
            start = time.perf_counter()
            try:
                prediction = predictor(image)
            except UserError as error:  # of another size than an exported file takes
                failed += 1
                print(f"error: {path}: {error}", file=sys.stderr)
                continue
            explanation = None
            if explained:
                tensor = torch.from_numpy(image).permute(2, 0, 1)
                explanation = explain(whole, tensor, inference)
            busy += time.perf_counter() - start
            writing.append(
                pool.submit(
                    _write, path, out, name, image, prediction, explanation, predictor.labels
                )
            )
        failed += sum(_finished(future) for future in writing)
    seconds = time.perf_counter() - began
    if (done := len(files) - failed) > 1:
        print(
            f"{done} images in {seconds:.1f} s, {done / seconds:.1f} images/s; "
            f"the network computed {busy / seconds:.0%} of the time"
        )
    return failed


def ahead(
    pool: ThreadPoolExecutor,
    read: Callable[[Path], np.ndarray],
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


def _write(
    path: Path,
    out: Path,
    name: str,
    image: np.ndarray,
    prediction: Prediction,
    explanation: Explanation | None,
    labels: LabelMap,
) -> str:
    """Write mask, overlay and what explains them; returns the message."""
    mask, picture = out / f"{name}{MASK}", out / f"{name}{OVERLAY}"
    write_atomic(mask, lambda temporary: labels.write(temporary, prediction.mask))
    drawn = overlay(image, prediction.mask, labels)
    write_atomic(picture, lambda temporary: write_jpeg(temporary, drawn))
    likely = [
        f"{name} {chance:.2f}" for name, chance in prediction.present.items() if chance >= 0.5
    ]
    lines = [f"{path} -> {mask}, {picture.name}"]
    if prediction.present:
        present = "  ".join(likely) or "no class with probability 0.5"
        lines.append(f"  in the image: {present}")
    if explanation:
        third = out / f"{name}{EXPLAINED}"
        shown = explanation_picture(image, prediction.mask, explanation, labels)
        write_atomic(third, lambda temporary: write_jpeg(temporary, shown))
        parts = np.bincount(explanation.deciding.ravel(), minlength=len(explanation.names))
        shares = ", ".join(
            f"{who} {100 * n / parts.sum():.1f} %" for who, n in zip(explanation.names, parts) if n
        )
        lines[0] += f", {third.name}"
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
