"""Inference on files: masks and overlays beside each other, a bad file named and passed over."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cfnseg.data.files import IMAGE_TYPES, existing, read_image
from cfnseg.engine.inference import PLAIN, Inference
from cfnseg.engine.memory import resident, through_windows
from cfnseg.engine.pictures import overlay, write_jpeg
from cfnseg.engine.predict import Predictor
from cfnseg.errors import UserError
from cfnseg.storage import write_atomic

SHIPPED = Path(__file__).parents[2] / "data" / "weights" / "camvid_cfn.safetensors"
DRAWING = 3  # pictures of the image's size that exist at once while an overlay is drawn and written


def image_files(paths: Iterable[Path]) -> list[Path]:
    """The paths with each folder replaced by the images in it, sorted. A missing path stays, to be named as it is read."""
    found = []
    for path in paths:
        found += sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_TYPES) if path.is_dir() else [path]
    if not found:
        raise UserError(f"no image (*{' *'.join(IMAGE_TYPES)}) in {', '.join(map(str, paths))}")
    return found


def result_names(files: list[Path]) -> list[str]:
    """What each file's results are called: its stem, with suffix and folder as far as it takes to tell files apart.

    Raises UserError (usage) if even those are the same, as for a file given twice.
    """
    names = [f.stem for f in files]
    for longer in (lambda f: f.name, lambda f: f"{f.parent.name}_{f.name}"):
        count = Counter(names)
        names = [longer(f) if count[name] > 1 else name for f, name in zip(files, names)]
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise UserError(f"{len(twice)} results would overwrite each other, first {twice[0]}; give each image once", code=2)
    return names


def infer_files(paths: Iterable[Path], weights: Path | None, out: Path, device: str = "auto", inference: Inference = PLAIN) -> int:
    """Segment files and write the masks.

    Args:
        paths: images and folders.
        weights: a weights file; None = the shipped one.
        out: a folder; gets ``<stem>_mask.png`` (8-bit palette PNG of raw ids, exactly the image's size) and
            ``<stem>_overlay.jpg``; `result_names` says what images that share a stem get.
        device: "auto", "cpu" or "cuda".
        inference: windows, scales, mirroring. What an image that goes through windows will need is printed before it does.

    Returns:
        The number of files that failed; each is named on stderr.

    Raises:
        UserError: no images, or weights that cannot be used.
    """
    files = image_files(paths)
    weights = weights or existing(SHIPPED, "the shipped weights", "They are in the project's repository; else give --weights.")
    predictor = Predictor(weights, device, inference)
    process = resident()
    print(f"weights: {weights} ({', '.join(predictor.labels.names)}) on {predictor.device.type}")
    failed = 0
    for path, name in zip(files, result_names(files)):
        try:
            image = read_image(path)
            if told := through_windows(predictor.model, image.shape[:2], inference, process, DRAWING * image.size):
                print(f"{path}: {told}", flush=True)
            prediction = predictor(image)
            mask, picture = out / f"{name}_mask.png", out / f"{name}_overlay.jpg"
            write_atomic(mask, lambda beside, m=prediction.mask: predictor.labels.write(beside, m))
            drawn = overlay(image, prediction.mask, predictor.labels)
            write_atomic(picture, lambda beside, d=drawn: write_jpeg(beside, d))
        except UserError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        present = "  ".join(f"{label} {chance:.2f}" for label, chance in prediction.present.items() if chance >= 0.5)
        print(f"{path} -> {mask}, {picture.name}\n  in the image: {present or 'no class with probability 0.5'}")
    return failed
