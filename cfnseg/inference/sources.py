"""What `cfnseg infer` takes: images, folders of images, clips and cameras."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch

from cfnseg.data.bands import demand_rgb
from cfnseg.data.files import IMAGE_TYPES, list_images, note_left_out
from cfnseg.errors import UserError, demand
from cfnseg.inference.clip_files import infer_clip
from cfnseg.inference.explanation import check_explainable
from cfnseg.inference.image_files import ENDS, NOTHING, Extra, infer_images
from cfnseg.inference.onnx_predictor import OnnxPredictor
from cfnseg.inference.predictor import Predictor
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.inference.video import VIDEO_TYPES, is_clip, pyav
from cfnseg.models.weights import load


def image_files(paths: Iterable[Path]) -> list[Path]:
    """The paths with each folder replaced by the images in it, sorted. A missing path stays, to be
    named as it is read.

    A folder's clips are left out, as each may take hours: they are given by their own path.

    Earlier results in a folder are left out, with a line on it: a mask or another result whose
    image, or another result of it, lies there as well. A result that is given by its own path is
    an image like others.
    """
    found, clips = [], []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        images, others = list_images(path)
        clips += [p for p in others if is_clip(p)]
        note_left_out(path, others)
        results = set(earlier_results(images))
        if results:
            print(
                f"{path}: {len(results)} earlier results (such as {min(results).name}) are left out"
            )
        found += [p for p in images if p not in results]
    if not found:
        hint = f"; clips are given by name, such as {clips[0]}" if clips else ""
        raise UserError(
            f"no image (*{' *'.join(IMAGE_TYPES)}) in {', '.join(map(str, paths))}{hint}"
        )
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
    extra: Extra = NOTHING,
    smooth: float = 0.0,
    frames: int | None = None,
) -> int:
    """Segment files and write the masks: of the images first, then of the clips and cameras. Files
    are read and written in threads while the network computes.

    Args:
        paths: images, folders of images, clips, and cameras' indices.
        weights: a weights file, or one that `cfnseg export` wrote (.onnx).
        out: a folder, none of ``paths``; gets ``<stem>_mask.png`` (8-bit palette PNG of raw ids,
            exactly the image's size; of a TIFF with a georeference ``<stem>_mask.tif``, with the
            same) and ``<stem>_overlay.jpg``; `result_names` says what images that share a stem get.
            Of sigmoid outputs the masks are ``<stem>/<class>.png``, 0 and 255. For a clip's results
            see `infer_clip`.
        device: "auto", "cpu" or "cuda".
        inference: windows, scales, mirroring. What an image that goes through windows will need is
            printed before it does.
        compile: see `Predictor`.
        extra: further files of images.
        smooth, frames: as ``smooth`` and ``limit`` of `infer_clip`.

    Returns:
        The number of files that failed; each is named on stderr. The images per second are printed
        last, with the share of the time in which the network computed: what is left of it was spent
        in waiting for files.

    Raises:
        UserError: no images, weights that cannot be used or explained, or results that would lie
            among the images or overwrite each other.
    """
    paths, out = list(paths), Path(out)
    clips = [p for p in paths if is_clip(p)]
    _check(paths, clips, out, compile, extra, smooth, frames)
    files = image_files([p for p in paths if p not in clips]) if len(clips) < len(paths) else []
    names = result_names([*files, *clips])
    failed, explainable = 0, None
    predictor: Predictor | OnnxPredictor
    if weights.suffix == ".onnx":
        if compile or extra.explanation or smooth:
            raise UserError(
                f"{weights}: --compile, --explain and --smooth take a weights file", code=2
            )
        predictor = OnnxPredictor(weights, device, inference)
    else:
        loaded = load(weights)
        if extra.explanation or clips:
            loaded.demand_softmax(weights, "--explain" if extra.explanation else "a clip")
        predictor = Predictor(loaded, device, inference, compile)
        if extra.explanation:
            check_explainable(loaded.model, inference)
            explainable = loaded.model.to(predictor.device, memory_format=torch.channels_last)
    if clips:
        demand_rgb(predictor.bands, "infer of clips and cameras")
    print(f"weights: {weights} ({', '.join(predictor.labels.names)}) on {predictor.device.type}")
    if files:
        failed = infer_images(files, names[: len(files)], out, predictor, explainable, extra)
    for path, name in zip(clips, names[len(files) :]):
        try:
            failed += not infer_clip(path, name, out, predictor, weights, smooth, frames)
        except UserError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
    return failed


def _check(
    paths: list[Path],
    clips: list[Path],
    out: Path,
    compile: bool,
    extra: Extra,
    smooth: float,
    frames: int | None,
) -> None:
    """Raise UserError (usage) for options that do not go together."""
    demand(0 <= smooth < 1, "--smooth", smooth, "a share, 0 up to below 1")
    demand(frames is None or frames >= 1, "--frames", frames, "1 or more")
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
    if extra.explanation and compile:
        raise UserError("--explain takes the network as it is; leave out --compile", code=2)
    if clips:
        pyav()
    if any(extra) and clips:
        raise UserError(
            "--explain, --save-confidence and --save-probabilities are for images; leave out "
            f"{clips[0]}",
            code=2,
        )
    if not clips and (smooth or frames):
        raise UserError(
            f"--smooth and --frames are for clips (*{' *'.join(VIDEO_TYPES)}) and cameras; "
            "none is given",
            code=2,
        )
