"""How fast a model is: by torch, compiled, and as a file by other runtimes."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cfnseg.data.bands import Bands, demand_rgb
from cfnseg.data.dataset import open_dataset
from cfnseg.errors import UserError
from cfnseg.export.onnx_file import write_onnx
from cfnseg.export.parity import WHOLE, Run
from cfnseg.export.program import Program
from cfnseg.export.quantize import write_int8
from cfnseg.inference.onnx_predictor import OnnxPredictor
from cfnseg.inference.predictor import segment
from cfnseg.models.folding import folded
from cfnseg.models.segmenter import bands_of
from cfnseg.models.weights import load
from cfnseg.report.text import table, write_text
from cfnseg.timing import interleaved

CALIBRATED = 16  # built-in scenes for int8's ranges; its time does not depend on them


@dataclass(frozen=True)
class Timing:
    """Median milliseconds of a way to run a model, and the median of the rounds' ratios to the
    first way's."""

    way: str
    milliseconds: float
    ratio: float


def timed(ways: dict[str, Callable[[], object]], rounds: int) -> list[Timing]:
    """Time each way once a round, see `interleaved`."""
    seconds = interleaved(list(ways.values()), rounds)
    ratios = np.median(seconds / seconds[:, :1], 0)
    milliseconds = 1000 * np.median(seconds, 0)
    return [Timing(*row) for row in zip(ways, milliseconds.tolist(), ratios.tolist())]


def by_torch(model: nn.Module, size: tuple[int, int]) -> Callable[[], object]:
    """Mask and confidence of a random image of ``size`` (H, W), as inference makes them."""
    tensor = torch.from_numpy(_image(size, bands_of(model))).permute(2, 0, 1)
    return lambda: segment(model, tensor, WHOLE, confidence=True)


def by_file(run: Run, size: tuple[int, int], bands: Bands | None = None) -> Callable[[], object]:
    """The same by an exported file."""
    image = _image(size, bands)
    return lambda: run(image)


def _image(size: tuple[int, int], bands: Bands | None) -> np.ndarray:
    shape = *size, len(bands) if bands else 3
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return image.astype(bands.type) if bands else image


def latency(model: nn.Module, run: Run, size: tuple[int, int]) -> str:
    """A line on the weights' own model and the exported file."""
    ways = {"weights": by_torch(model, size), "file": by_file(run, size, bands_of(model))}
    own, file = timed(ways, rounds=10)
    return (
        f"{size[0]} x {size[1]}, CPU, {torch.get_num_threads()} threads: the weights "
        f"{own.milliseconds:.0f} ms, the file {file.milliseconds:.0f} ms, ratio {file.ratio:.2f}"
    )


def time_ways(
    weights: Path | None, size: tuple[int, int], rounds: int, compiled: bool, out: Path
) -> str:
    """Time every way of running weights on the CPU; write deploy.md; return its text.

    Args:
        weights: a weights file of segmentation; None = the model that ships.
        size: (H, W) of the image.
        rounds: timed runs of each way, interleaved.
        compiled: torch.compile as well, which takes a minute or two.
        out: the folder of deploy.md.

    Raises:
        UserError: weights that cannot be used or exported.
    """
    loaded = load(weights)
    if loaded.settings.level != "pixel":
        raise UserError(f"{weights} is a classification model and makes no masks", code=2)
    demand_rgb(bands_of(loaded.model), "bench deploy")
    loaded.demand_softmax(weights, "this table")
    model = folded(loaded.model).to(memory_format=torch.channels_last).eval()
    ways = {
        "torch, folded head (what cfnseg infer runs)": by_torch(model, size),
        "torch, as trained": by_torch(
            loaded.model.to(memory_format=torch.channels_last).eval(), size
        ),
    }
    if compiled:
        fast = copy.deepcopy(model)
        fast.compile()
        ways["torch.compile, folded head"] = by_torch(fast, size)
    with tempfile.TemporaryDirectory() as folder:
        file, int8 = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        about = {"labels": loaded.labels.to_dict(), "score": loaded.score, "license": ""}
        write_onnx(Program(loaded.model), file, size, about)
        write_int8(file, int8, open_dataset("shapes", "", "train"), CALIBRATED, size)
        ways["onnxruntime"] = by_file(OnnxPredictor(file, "cpu").run, size)
        ways["onnxruntime, int8"] = by_file(OnnxPredictor(int8, "cpu").run, size)
        with contextlib.suppress(ImportError):
            ways["OpenVINO, float32"] = by_file(_openvino(file), size)
        rows = [[t.way, f"{t.milliseconds:.1f}", f"{t.ratio:.2f}"] for t in timed(ways, rounds)]
    settings = loaded.settings
    note = (
        f"{settings.name}, {settings.encoder}, test scale {settings.test_scale:g}, one image of "
        f"{size[0]} x {size[1]}, {torch.get_num_threads()} threads, {rounds} interleaved rounds, "
        "from uint8 RGB to mask and confidence. A ratio is the median of the rounds' ratios."
    )
    text = "\n".join([*table(["way", "ms", "/ first"], rows), "", note, ""])
    write_text(out / "deploy.md", text)
    return text


def _openvino(file: Path) -> Run:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    settings["INFERENCE_NUM_THREADS"] = str(torch.get_num_threads())
    compiled = core.compile_model(core.read_model(file), "CPU", settings)

    def run(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mask, confidence, logits = compiled(image[None]).values()
        return mask[0], confidence[0], logits[0]

    return run
