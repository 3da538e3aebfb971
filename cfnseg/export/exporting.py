"""From weights to a file for other programs, and what it loses."""

from __future__ import annotations

import io
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cfnseg.data.dataset import Dataset, open_dataset
from cfnseg.errors import UserError
from cfnseg.export.latency import latency
from cfnseg.export.onnx_file import traced, write_onnx
from cfnseg.export.parity import Run, compare_with
from cfnseg.export.program import Program
from cfnseg.export.quantize import write_int8
from cfnseg.inference.onnx_predictor import OnnxPredictor
from cfnseg.models.folding import folded
from cfnseg.models.hub_file import beside
from cfnseg.models.segmenter import bands_of
from cfnseg.models.weights import Weights, check_labels, load
from cfnseg.storage import write_atomic

SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
TIMED = 360, 480  # (H, W) where a file takes any size


def export_weights(
    weights: Path,
    out: Path | None = None,
    kind: Literal["onnx", "torch"] = "onnx",
    *,
    half: bool = False,
    int8: bool = False,
    size: tuple[int, int] | None = None,
    dataset: str = "",
    root: str = "",
    split: str = "val",
    images: int = 50,
    licence: str = "",
) -> Path:
    """Write the file, and print how it agrees with the weights and how fast it is.

    Args:
        weights: a weights file of segmentation.
        out: the new file; None = next to the weights.
        kind: "onnx", or "torch": a program of `torch.export`, which loads without cfnseg.
        half: the network in float16, for GPUs.
        int8: convolutions in int8 (ONNX).
        size: (H, W) of the images that the file takes; None = any.
        dataset, root, split: the data that they are compared on; "" for dataset = what the weights
            were trained on. int8 is calibrated on its training images.
        images: so many images are compared, and calibrate.
        licence: of the model, for the file's metadata.

    Raises:
        UserError: weights, data or settings that cannot be used; a model that cannot be exported.
    """
    if int8 and (kind != "onnx" or half):
        raise UserError("--int8 is for --format onnx, without --half", code=2)
    loaded = load(weights)
    if loaded.settings.level != "pixel":
        raise UserError(f"{weights} is a classification model and makes no masks", code=2)
    loaded.demand_softmax(weights, "export")
    bands = bands_of(loaded.model)
    near = beside(weights)
    out = out or near.with_name(f"{near.stem}{'_int8' * int8}{SUFFIX[kind]}")
    if out.suffix != SUFFIX[kind]:
        raise UserError(f"--out {out}: expected a name that ends with {SUFFIX[kind]}", code=2)
    name = dataset or loaded.score.get("data", "")
    data, scored = _data(loaded, weights, name, root, split, asked=bool(dataset or root))
    about = {"labels": loaded.labels.to_dict(), "score": loaded.score, "license": licence}
    about["bands"] = asdict(bands) if bands else {}
    program = Program(loaded.model, half)
    print(f"tracing for images of {f'{size[0]} x {size[1]}' if size else 'any size'}", flush=True)
    if kind == "torch":
        graph = traced(program, size)
        content = io.BytesIO()  # torch's own file writer aborts the process on a full disk
        torch.export.save(graph, content)
        write_atomic(out, lambda path: path.write_bytes(content.getbuffer()))
        run = _torch_run(out)
    elif int8:
        with tempfile.TemporaryDirectory() as folder:
            write_onnx(program, Path(folder) / "float.onnx", size, about)
            training = (
                open_dataset(name, root, "train", channels=len(bands or ())) if scored else data
            )
            write_int8(Path(folder) / "float.onnx", out, training, images, size)
        run = OnnxPredictor(out, "cpu").run
    else:
        write_onnx(program, out, size, about)
        run = OnnxPredictor(out, "cpu").run
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB")
    model = folded(loaded.model).to(memory_format=torch.channels_last).eval()
    for line in compare_with(model, run, data, images, size, scored).lines():
        print(line)
    print(latency(model, run, size or TIMED))
    return out


def _data(
    loaded: Weights, weights: Path, name: str, root: str, split: str, asked: bool
) -> tuple[Dataset, bool]:
    """The images to compare on, and whether their classes are the model's."""
    bands = bands_of(loaded.model)
    try:
        data = open_dataset(name, root, split, channels=len(bands or ()))
        check_labels(loaded.labels, data.labels, weights, f"{name} {split}")
        return data, True
    except UserError as error:
        if asked or bands:
            raise
        print(
            f"compared on built-in scenes, without a score, as --root names no such data: {error}"
        )
        return open_dataset("shapes", "", "val"), False


def _torch_run(path: Path) -> Run:
    program = torch.export.load(path).module()

    @torch.no_grad()
    def run(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mask, confidence, logits = program(torch.from_numpy(image)[None])
        return mask[0].numpy(), confidence[0].numpy(), logits[0].numpy()

    return run
