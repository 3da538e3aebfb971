"""What the commands do, from a config or files to a report: train, score weights, score masks."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cfnseg.config import Config, Data, check
from cfnseg.data.bands import as_picture
from cfnseg.data.dataset import (
    Dataset,
    Layers,
    is_trained_on,
    open_dataset,
    read_sample,
    read_truth,
)
from cfnseg.data.formats.class_folders import ImageSet, open_images
from cfnseg.data.loader import Batch
from cfnseg.data.predictions import find_masks, read_prediction
from cfnseg.errors import UserError, first_line
from cfnseg.evaluation.classification import evaluate_images
from cfnseg.evaluation.decisions import count_decisions
from cfnseg.evaluation.mask_files import evaluate_masks
from cfnseg.evaluation.overlap import evaluate_layers, predicted_layers
from cfnseg.evaluation.segmentation import count, evaluate, predicted
from cfnseg.inference.memory import resident, through_windows
from cfnseg.inference.onnx_predictor import OnnxPredictor
from cfnseg.inference.predictor import pick_device
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.models.folding import folded
from cfnseg.models.hub_file import beside
from cfnseg.models.segmenter import Output, bands_of
from cfnseg.models.weights import Weights, check_labels, load
from cfnseg.report.classification_report import write_classification_report
from cfnseg.report.overlap_report import write_overlap_report
from cfnseg.report.segmentation_report import write_report
from cfnseg.report.text import report_folder
from cfnseg.storage import locked
from cfnseg.training.hardware import build_fabric
from cfnseg.training.hosts import file_from_main, from_main, together
from cfnseg.training.loggers import open_loggers
from cfnseg.training.run import Run
from cfnseg.training.stopping import Stopping

LEVELS = {"pixel": "a segmentation model", "image": "a classification model"}
# what a collective's error says when a process at its other end has ended
LOST = re.compile("onnection closed by peer|onnection reset by peer|gloo|NCCL|Broken pipe")
TOOLS = {"pixel": "tools/eval_seg.py", "image": "tools/eval_cls.py"}


def train(
    config: Config,
    resume: bool = False,
    data: tuple[Dataset, Dataset] | None = None,
    model: nn.Module | None = None,
    loss: Callable[[Output, Batch], Tensor] | None = None,
) -> Path:
    """Train, keep the best weights, and report on them as on any weights file, in float32.

    In the main thread SIGINT and SIGTERM finish the step, save and raise `Stopped`, a
    KeyboardInterrupt. In another thread no signal is handled.

    Args:
        config: every setting of the run.
        resume: continue the run in ``<config.runs>/<config.name>``; it ends with the weights that
            it would have had, given the same data, model and loss. More epochs or steps extend a
            finished run.
        data: training and validation data of your own: objects with the four members of
            `cfnseg.data.dataset.Dataset`. The weights and the report call them
            ``config.data.name``. None = as ``config.data`` says.
        model: a network of your own: ``forward(images, region=None)`` takes images (N, 3, H, W)
            uint8 RGB and their regions, see `cfnseg.models.cfn.CFN.forward`, and returns
            `cfnseg.models.segmenter.Output`. It is trained in place and holds the best weights
            afterwards. None = as ``config.model`` says.
        loss: a loss of your own, (output, batch) -> scalar, a mean over the batch's images.
            ``batch`` has image, mask (N, H, W) uint8 train ids with 255 = ignore, region and
            names; with sigmoid outputs mask has layers (N, H, W, C). None = as ``config.loss``
            says.

    Returns:
        The run folder: config.json, log.jsonl, last.ckpt, best.safetensors, pictures/, report/.

    Raises:
        UserError: a mistake in settings, data or files. Stopped: stopped, with the state saved.

    Example:
        >>> import cfnseg
        >>> config = cfnseg.Config(
        ...     model=cfnseg.Model(encoder="test_efficientnet", encoder_weights=None, width=8),
        ...     data=cfnseg.Data(name="shapes", holdout="train_000", crop=(64, 64), workers=0),
        ...     train=cfnseg.Train(max_steps=2, pictures=0),
        ...     name="example",
        ... )
        >>> run = cfnseg.train(config)  # prints its progress
        >>> str(run), (run / "best.safetensors").is_file()
        ('runs/example', True)
    """
    check(config)
    fabric, stopping = build_fabric(config.train), Stopping()
    folder = Path(config.runs) / config.name
    busy = f"{folder} is in use by another run; give this one a --name"
    with ExitStack() as held:
        on_main = fabric.global_rank == 0
        together(fabric, lambda: on_main and held.enter_context(locked(folder / ".lock", busy)))
        loggers = held.enter_context(open_loggers(config, fabric))
        try:
            best_file, validation = Run(
                config, resume, fabric, data, model, loss, stopping, loggers
            ).train()
            with stopping:
                best = together(
                    fabric,
                    lambda: file_from_main(fabric, best_file, functools.partial(load, model=model)),
                )
                facts = _facts(config.data.name, "", best.score["split"], weights=best_file)
                write = _score(
                    best,
                    validation,
                    folder / "report",
                    facts,
                    run_folder=folder,
                    stopping=stopping,
                    device=fabric.device,
                    workers=config.data.workers,
                    rank=fabric.global_rank,
                    world=fabric.world_size,
                    title="report" if on_main else "",
                )
                from_main(fabric, write)
                loggers.report(folder / "report", best.score["step"])
                stopping.check()
        except (RuntimeError, OSError) as error:
            lost = isinstance(error, torch.distributed.DistError) or LOST.search(str(error))
            if fabric.world_size > 1 and lost:
                stopping.check()  # the others were asked to stop too
                raise UserError(
                    f"another process of the run is gone ({first_line(error)}); "
                    "continue with --resume"
                ) from None
            raise
    return folder


def score_weights(
    weights: Path,
    dataset: str,
    root: str,
    split: str,
    out: Path | None,
    workers: int = 2,
    device: str = "auto",
    inference: Inference = PLAIN,
    explain: bool = False,
    pictures: bool = True,
    level: str = "",
) -> dict:
    """Evaluate a weights file and write the report.

    Args:
        weights: a weights file of cfnseg, or one of the hub.
        dataset, root, split: the data; "" for dataset = what the weights were trained on, for split
            = val, or test for classification.
        out: the report's folder; None = <weights' name>_<split> next to the weights, in the current
            folder for weights of the hub.
        workers: loader processes.
        device: "auto", "cpu" or "cuda".
        inference: windows, scales, mirroring (segmentation).
        explain: add what other libraries would call mIoU (segmentation).
        pictures: show images on the page; without them it holds no copy of the data (segmentation).
        level: "pixel" (segmentation) or "image" (classification): what the weights must be; "" =
            either.

    Returns:
        What report.json holds.

    Raises:
        UserError: weights or data that cannot be used, or that have different classes; a report
            that could not be written.
    """
    loaded: Weights | OnnxPredictor
    if weights.suffix == ".onnx":
        loaded, own = OnnxPredictor(weights, device, inference), "pixel"
    else:
        loaded = load(weights)
        own = loaded.settings.level
    name = dataset or loaded.score.get("data", "")
    if not name:
        raise UserError(
            f"{weights} does not say what it was trained on; give --dataset NAME", code=2
        )
    if level not in ("", own):
        raise UserError(f"{weights} is {LEVELS[own]}; score it with {TOOLS[own]}", code=2)
    if explain and isinstance(loaded, Weights):
        loaded.demand_softmax(weights, "--explain-metric")
    level, split = own, split or {"pixel": "val", "image": "test"}[own]
    if level == "image" and (inference != PLAIN or explain):
        raise UserError("windows, views and --explain-metric are for segmentation", code=2)
    bands = bands_of(loaded.model) if isinstance(loaded, Weights) else loaded.bands
    opened = (
        functools.partial(open_dataset, channels=len(bands or ()))
        if level == "pixel"
        else functools.partial(open_images, classes=loaded.labels.names)
    )
    data = opened(name, root, split)
    check_labels(loaded.labels, data.labels, weights, f"{name} {split}")
    near = beside(weights)
    out = report_folder(out or near.with_name(f"{near.stem}_{split}"))
    changed = {
        f.name: getattr(inference, f.name)
        for f in fields(inference)
        if getattr(inference, f.name) != f.default
    }
    if is_trained_on(loaded.score.get("split", ""), split) and name == loaded.score.get("data"):
        split = loaded.score["split"]
        print(f"warning: {weights}: {split}; the score says nothing of other images")
    facts = _facts(name, root, split, weights=weights, **changed)
    shown = {"workers": workers, "title": "evaluate", "explain": explain, "pictures": pictures}
    if isinstance(loaded, OnnxPredictor):
        return _show(out, _score_exported(loaded, data, out, facts, **shown))
    place = pick_device(device)
    if level == "pixel":
        if loaded.settings.output == "sigmoid":
            data = Layers(data)
        process, first = resident(), read_truth(data, 0).shape[:2]
        if message := through_windows(loaded.model.to(place), first, inference, process):
            print(f"{data.names[0]}, the first image: {message}", flush=True)
    write = _score(loaded, data, out, facts, device=place, inference=inference, **shown)
    return _show(out, write())


def _score_exported(
    model: OnnxPredictor,
    data: Dataset,
    out: Path,
    facts: dict[str, str],
    *,
    workers: int,
    title: str,
    explain: bool,
    pictures: bool,
) -> dict:
    """Evaluate an exported file, which has no image head to score, and write the report."""
    result = count(
        model.segmented, data, workers=workers, details=True, title=title, bands=model.bands
    )

    def picture(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, truth = read_sample(data, index, model.bands)
        return as_picture(image), truth, model.run(image)[0]

    shown = picture if pictures else None
    return write_report(out, result, data.labels, shown, facts=facts, explain=explain)


def _score(
    weights: Weights,
    data: Dataset | ImageSet,
    out: Path,
    facts: dict[str, str],
    *,
    inference: Inference = PLAIN,
    explain: bool = False,
    pictures: bool = True,
    run_folder: Path | None = None,
    stopping: Stopping | None = None,
    **where: Any,
) -> Callable[[], dict]:
    """Evaluate weights; the returned function writes the report and returns what report.json holds.

    Args:
        weights, data: what is scored on what.
        out, facts, explain, pictures, run_folder: of the report.
        inference: windows, scales, mirroring (segmentation).
        stopping: asked before each image and each picture.
        where: device, workers, rank, world, title; see `evaluate`.
    """
    model = weights.model.to(where["device"], memory_format=torch.channels_last)
    if weights.settings.level == "image":
        crop = Data(crop=tuple(weights.score.get("crop", (224, 224))))
        result = evaluate_images(model, data, crop, stopping=stopping, **where)
        return functools.partial(
            write_classification_report,
            out,
            result,
            data.labels,
            data.image,
            facts=facts,
            run_folder=run_folder,
        )
    used, limits = folded(model), weights.thresholds
    scored = evaluate if limits is None else functools.partial(evaluate_layers, thresholds=limits)
    result = scored(used, data, details=True, inference=inference, stopping=stopping, **where)

    def picture(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if stopping:
            stopping.check()
        if limits is not None:
            return predicted_layers(used, data, index, limits, inference)
        return predicted(used, data, index, inference)

    shown = picture if pictures else None
    if limits is not None:
        about = {"score": weights.score, "facts": facts, "run_folder": run_folder}
        return functools.partial(write_overlap_report, out, result, data.labels, shown, **about)

    def write() -> dict:
        counted = count_decisions(
            model, data, inference, stopping=stopping, title=where["title"] and "branches"
        )
        return write_report(
            out,
            result,
            data.labels,
            shown,
            facts=facts,
            run_folder=run_folder,
            explain=explain,
            decisions=counted,
        )

    return write


def score_predictions(
    folder: Path,
    dataset: str,
    root: str,
    split: str,
    out: Path | None,
    workers: int = 2,
    explain: bool = False,
    pictures: bool = True,
) -> dict:
    """Score masks ``<image name>.png`` (raw ids) in a folder and write the report.

    Files that belong to no image are named and left out.

    Args:
        folder: the masks; ``<name>_mask.png``, as infer writes them, will do as well.
        dataset, root, split: the data with the truth.
        out: the report's folder; None = <folder>_report.
        workers: processes that read and count.
        explain: add what other libraries would call mIoU.
        pictures: show images on the page; without them it holds no copy of the data.

    Returns:
        What report.json holds.

    Raises:
        UserError: a mask is missing, of another size than the truth, or has an id that is no class;
            a report that could not be written.
    """
    if not dataset:
        raise UserError(
            "--predictions needs --dataset NAME, and --root and --split as they apply", code=2
        )
    data = open_dataset(dataset, root, split)
    masks, others = find_masks(folder, data.names)
    if others:
        several = len(others) > 1
        where = f"in {folder} belong{'' if several else 's'} to no image of {dataset} {split} and"
        note = f"{len(others)} PNG files {where} are not scored, first"
        print(f"note: {note if several else f'1 PNG file {where} is not scored:'} {others[0].name}")
    out = report_folder(out or folder.with_name(f"{folder.name}_report"))
    result = evaluate_masks(data, masks, workers, details=True, title="evaluate")

    def picture(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, truth = read_sample(data, index)
        return image, truth, read_prediction(masks[index], data.labels, truth.shape)

    facts = _facts(dataset, root, split, predictions=folder)
    return _show(
        out,
        write_report(
            out, result, data.labels, picture if pictures else None, facts=facts, explain=explain
        ),
    )


def _facts(data: str, root: str, split: str, **scored: object) -> dict[str, str]:
    """What was scored, and with which inference; the root only where it is not the usual place."""
    return {
        "data": data,
        **({"root": root} if root else {}),
        "split": split,
        **{key: str(value) for key, value in scored.items()},
    }


def _show(out: Path, report: dict) -> dict:
    print((out / "report.md").read_text())
    print(f"report: {out / 'report.html'}")
    return report
