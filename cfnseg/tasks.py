"""What the tools do, from a config or files to a report: train, score weights, score masks that any program wrote."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch

from cfnseg.config import Config, Data
from cfnseg.data.dataset import Dataset, open_dataset
from cfnseg.data.files import existing, read_mask
from cfnseg.data.image_sets import open_images
from cfnseg.engine.checkpoint import check_labels, load
from cfnseg.engine.classification import evaluate_images
from cfnseg.engine.evaluate import Evaluation, evaluate
from cfnseg.engine.predict import pick_device
from cfnseg.engine.segmentation import predicted
from cfnseg.engine.train import Run
from cfnseg.errors import UserError
from cfnseg.metrics.boundary import boundary_counts
from cfnseg.metrics.confusion import confusion_matrix, counts_of
from cfnseg.report.build import write_report
from cfnseg.report.labels import write_label_report


def train(config: Config, resume: bool = False) -> Path:
    """Train, keep the best weights, and write the report on them (computed in float32, whatever the training's precision).

    Args:
        config: every setting of the run.
        resume: continue the run in ``<config.runs>/<config.name>``; it ends with the weights that it would have had.

    Returns:
        The run folder: config.json, log.jsonl, last.ckpt, best.safetensors, pictures/, report/.

    Raises:
        UserError: a mistake in settings, data or files. KeyboardInterrupt: stopped, with the state saved.
    """
    run = Run(config, resume)
    run.train()
    weights = run.folder / "best.safetensors"
    best = load(weights)
    model = best.model.to(run.fabric.device, memory_format=torch.channels_last)
    more = {"boundary": True} if config.model.level == "pixel" else {}
    result = run.task.evaluate(model, run.val, device=run.fabric.device, rank=run.rank, world=run.world, **more)
    if run.rank == 0:
        run.log.say(f"waited for data {run.waiting:.1%} of the training time")
        facts = {"data": config.data.name, "split": best.score["split"], "weights": str(weights)}
        if config.model.level == "pixel":
            picture = functools.partial(predicted, model, run.val, device=run.fabric.device)
            write_report(run.folder / "report", result, run.labels, picture, facts=facts, run_folder=run.folder)
        else:
            write_label_report(run.folder / "report", result, run.labels, lambda i: run.val.read(i)[0], facts=facts, run_folder=run.folder)
    run.fabric.barrier()
    return run.folder


def score_image_weights(weights: Path, dataset: str, root: str, split: str, out: Path | None, workers: int = 2,
                        device: str = "auto") -> dict:
    """Evaluate the weights of an image-level net and write the report; arguments and errors as `score_weights`."""
    loaded = load(weights)
    if loaded.settings.level != "image":
        raise UserError(f"{weights} is a segmentation model; score it with tools/eval_seg.py", code=2)
    name = dataset or loaded.score.get("data", "")
    data = open_images(name, root, split, classes=loaded.labels.names)
    check_labels(loaded, data.labels, weights, f"{name} {split}")
    place = pick_device(device)
    model = loaded.model.to(place, memory_format=torch.channels_last)
    settings = Data(crop=tuple(loaded.score.get("crop", (224, 224))))
    result = evaluate_images(model, data, settings, device=place, workers=workers)
    out = out or weights.with_name(f"{weights.stem}_{split}")
    facts = {"data": name, "split": split, "weights": str(weights)}
    return _shown(out, write_label_report(out, result, data.labels, lambda i: data.read(i)[0], facts=facts))


def score_weights(weights: Path, dataset: str, root: str, split: str, out: Path | None, workers: int = 2,
                  device: str = "auto") -> dict:
    """Evaluate a weights file and write the report.

    Args:
        weights: a weights file of cfnseg.
        dataset, root, split: the data; "" for dataset = what the weights were trained on.
        out: the report's folder; None = <weights' name>_<split> beside the weights.
        workers: loader processes.
        device: "auto", "cpu" or "cuda".

    Returns:
        What report.json holds.

    Raises:
        UserError: weights or data that cannot be used, or that have different classes.
    """
    loaded = load(weights)
    name = dataset or loaded.score.get("data", "")
    if not name:
        raise UserError(f"{weights} does not say what it was trained on; give --dataset NAME", code=2)
    if loaded.settings.level != "pixel":
        raise UserError(f"{weights} is an image-level net; score it with tools/eval_cls.py", code=2)
    data = open_dataset(name, root, split)
    check_labels(loaded, data.labels, weights, f"{name} {split}")
    place = pick_device(device)
    model = loaded.model.to(place, memory_format=torch.channels_last)
    result = evaluate(model, data, device=place, workers=workers, boundary=True)
    out = out or weights.with_name(f"{weights.stem}_{split}")
    facts = {"data": name, "split": split, "weights": str(weights)}
    return _report(out, result, data, functools.partial(predicted, model, data, device=place), facts)


def score_predictions(folder: Path, dataset: str, root: str, split: str, out: Path | None) -> dict:
    """Score masks ``<image name>.png`` (raw ids) in a folder and write the report.

    Args:
        folder: the masks; ``<name>_mask.png``, as infer writes them, will do as well.
        dataset, root, split: the data with the truth.
        out: the report's folder; None = <folder>_report.

    Raises:
        UserError: a mask is missing, of another size than the truth, or has an id that is no class.
    """
    if not dataset:
        raise UserError("--predictions needs --dataset NAME, and --root and --split as they apply", code=2)
    data = open_dataset(dataset, root, split)
    existing(folder, "the folder of predictions", "Give --predictions DIR.")
    classes = len(data.labels)
    matrices, edges = [], []
    for index, name in enumerate(data.names):
        prediction = _read_prediction(folder, name, data)
        truth = data.read(index)[1]
        if truth.shape != prediction.shape:
            raise UserError(f"prediction for {name} is {prediction.shape[1]}x{prediction.shape[0]}, the truth is "
                            f"{truth.shape[1]}x{truth.shape[0]}; masks are scored at the truth's size")
        matrices.append(confusion_matrix(truth, prediction, classes))
        edges.append(boundary_counts(truth, prediction, classes))
    result = Evaluation(data.names, np.sum(matrices, 0), np.stack([counts_of(m) for m in matrices]), boundary=np.stack(edges))

    def picture(index: int):
        return *data.read(index), _read_prediction(folder, data.names[index], data)

    return _report(out or folder.with_name(f"{folder.name}_report"), result, data, picture,
                   {"data": dataset, "split": split, "predictions": str(folder)})


def _read_prediction(folder: Path, name: str, data: Dataset) -> np.ndarray:
    stem = name.replace("/", "_")
    path = next((p for p in (folder / f"{stem}.png", folder / f"{stem}_mask.png") if p.exists()), None)
    if path is None:
        raise UserError(f"no prediction for {name}: neither {stem}.png nor {stem}_mask.png in {folder}, "
                        f"which has {len(list(folder.glob('*.png')))} PNG files for {len(data.names)} images")
    mask = data.labels.encode(read_mask(path), path)
    if (mask == 255).any():
        raise UserError(f"{path}: {(mask == 255).sum()} px are predicted as an ignored id; every pixel needs one of the classes")
    return mask


def _report(out: Path, result: Evaluation, data: Dataset, picture, facts: dict[str, str]) -> dict:
    return _shown(out, write_report(out, result, data.labels, picture, facts=facts))


def _shown(out: Path, report: dict) -> dict:
    print((out / "report.md").read_text())
    print(f"report: {out / 'report.html'}")
    return report
