"""What the tools do, from a config or files to a report: train, score weights, score masks that any program wrote."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

import torch

from cfnseg.config import Config, Data, check
from cfnseg.data.dataset import Dataset, open_dataset, read_sample, read_truth
from cfnseg.data.formats.class_folders import open_images
from cfnseg.data.predictions import find_masks, read_prediction
from cfnseg.engine.checkpoint import check_labels, load
from cfnseg.engine.classification import evaluate_images
from cfnseg.engine.evaluate import evaluate
from cfnseg.engine.hardware import build_fabric
from cfnseg.engine.hosts import file_from_main, from_main, together
from cfnseg.engine.inference import PLAIN, Inference
from cfnseg.engine.masks import evaluate_masks
from cfnseg.engine.memory import resident, through_windows
from cfnseg.engine.predict import pick_device
from cfnseg.engine.segmentation import predicted
from cfnseg.engine.train import Run
from cfnseg.errors import UserError, first_line
from cfnseg.report.classification_report import write_classification_report
from cfnseg.report.segmentation_report import write_report
from cfnseg.report.text import report_folder
from cfnseg.storage import locked


def train(config: Config, resume: bool = False, data: tuple[Dataset, Dataset] | None = None) -> Path:
    """Train, keep the best weights, and write the report on them (computed in float32, whatever the training's precision).

    In the main thread SIGINT and SIGTERM finish the step, save and raise `Stopped`, a KeyboardInterrupt. In another thread
    no signal is handled.

    Args:
        config: every setting of the run.
        resume: continue the run in ``<config.runs>/<config.name>``; it ends with the weights that it would have had. A
            finished run is extended by more epochs or steps.
        data: training and validation data of your own: any objects with the four members of `cfnseg.data.dataset.Dataset`;
            None = as ``config.data`` says. ``config.data.name`` is then what the weights and the report call them.

    Returns:
        The run folder: config.json, log.jsonl, last.ckpt, best.safetensors, pictures/, report/.

    Raises:
        UserError: a mistake in settings, data or files. Stopped: stopped, with the state saved.
    """
    check(config)
    fabric = build_fabric(config.train)
    folder = Path(config.runs) / config.name
    with ExitStack() as held:
        busy = f"{folder} is in use by another run; give this one a --name"
        on_main = fabric.global_rank == 0
        together(fabric, lambda: on_main and held.enter_context(locked(folder / ".lock", busy)))
        run = None
        try:
            run = Run(config, resume, fabric, data)
            run.train()
            with run.stopping:
                _report(run)
                run.stopping.check()
        except (RuntimeError, OSError) as error:
            if fabric.world_size > 1 and _lost(error):
                if run:
                    run.stopping.check()  # the others were asked to stop too
                raise UserError(f"another process of the run is gone ({first_line(error)}); continue with --resume") from None
            raise
    return folder


def _lost(error: Exception) -> bool:
    """Did a collective fail because a process at its other end ended?"""
    return isinstance(error, torch.distributed.DistError) or any(
        sign in str(error) for sign in ("onnection closed by peer", "onnection reset by peer", "gloo", "NCCL", "Broken pipe"))


def _report(run: Run) -> None:
    """Score the best weights as any weights file is scored, and write the report."""
    config, fabric, weights = run.config, run.fabric, run.folder / "best.safetensors"
    best = together(fabric, lambda: file_from_main(fabric, weights, load))
    model = best.model.to(fabric.device, memory_format=torch.channels_last)
    more = {"details": True} if config.model.level == "pixel" else {}
    result = run.task.evaluate(model, run.val, device=fabric.device, rank=run.rank, world=run.world, stopping=run.stopping, **more)
    facts = {"data": config.data.name, "split": best.score["split"], "weights": str(weights)}

    def write() -> None:
        run.log.say(f"waited for data {run.waiting:.1%} of the training time")
        if config.model.level == "pixel":
            def picture(index: int):
                run.stopping.check()
                return predicted(model, run.val, index)

            write_report(run.folder / "report", result, run.labels, picture, facts=facts, run_folder=run.folder)
        else:
            write_classification_report(run.folder / "report", result, run.labels, run.val.image, facts=facts,
                               run_folder=run.folder)

    from_main(fabric, write)


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
    out = report_folder(out or weights.with_name(f"{weights.stem}_{split}"))
    result = evaluate_images(model, data, settings, device=place, workers=workers)
    facts = _facts(name, root, split, weights=weights)
    return _shown(out, write_classification_report(out, result, data.labels, data.image, facts=facts))


def score_weights(weights: Path, dataset: str, root: str, split: str, out: Path | None, workers: int = 2,
                  device: str = "auto", inference: Inference = PLAIN, explain: bool = False, pictures: bool = True) -> dict:
    """Evaluate a weights file and write the report.

    Args:
        weights: a weights file of cfnseg.
        dataset, root, split: the data; "" for dataset = what the weights were trained on.
        out: the report's folder; None = <weights' name>_<split> beside the weights.
        workers: loader processes.
        device: "auto", "cpu" or "cuda".
        inference: windows, scales, mirroring.
        explain: add what other libraries would call mIoU.
        pictures: show images on the page; without them it has no copy of the data.

    Returns:
        What report.json holds.

    Raises:
        UserError: weights or data that cannot be used, or that have different classes; a report that could not be written.
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
    out = report_folder(out or weights.with_name(f"{weights.stem}_{split}"))
    process, first = resident(), read_truth(data, 0).shape
    if told := through_windows(model.eval(), first, inference, process):
        print(f"{data.names[0]}, the first image: {told}", flush=True)
    result = evaluate(model, data, device=place, workers=workers, details=True, inference=inference)
    changed = {f.name: getattr(inference, f.name) for f in fields(inference) if getattr(inference, f.name) != f.default}
    facts = _facts(name, root, split, weights=weights, **changed)
    picture = functools.partial(predicted, model, data, inference=inference) if pictures else None
    return _shown(out, write_report(out, result, data.labels, picture, facts=facts, explain=explain))


def score_predictions(folder: Path, dataset: str, root: str, split: str, out: Path | None, workers: int = 2,
                      explain: bool = False, pictures: bool = True) -> dict:
    """Score masks ``<image name>.png`` (raw ids) in a folder and write the report; files of no image are named and left out.

    Args:
        folder: the masks; ``<name>_mask.png``, as infer writes them, will do as well.
        dataset, root, split: the data with the truth.
        out: the report's folder; None = <folder>_report.
        workers: processes that read and count.
        explain: add what other libraries would call mIoU.
        pictures: show images on the page; without them it has no copy of the data.

    Returns:
        What report.json holds.

    Raises:
        UserError: a mask is missing, of another size than the truth, or has an id that is no class; a report that could not
            be written.
    """
    if not dataset:
        raise UserError("--predictions needs --dataset NAME, and --root and --split as they apply", code=2)
    data = open_dataset(dataset, root, split)
    masks, others = find_masks(folder, data.names)
    if others:
        several = f"{len(others)} PNG files in {folder} belong to no image of {dataset} {split} and are not scored, first"
        one = f"1 PNG file in {folder} belongs to no image of {dataset} {split} and is not scored:"
        print(f"note: {several if len(others) > 1 else one} {others[0].name}")
    out = report_folder(out or folder.with_name(f"{folder.name}_report"))
    result = evaluate_masks(data, masks, workers, details=True)

    def picture(index: int):
        image, truth = read_sample(data, index)
        return image, truth, read_prediction(masks[index], data.labels, truth.shape)

    facts = _facts(dataset, root, split, predictions=folder)
    return _shown(out, write_report(out, result, data.labels, picture if pictures else None, facts=facts, explain=explain))


def _facts(data: str, root: str, split: str, **scored: object) -> dict[str, str]:
    """What was scored, and with which inference; the root only where it is not the usual place."""
    return {"data": data, **({"root": root} if root else {}), "split": split, **{key: str(value) for key, value in scored.items()}}


def _shown(out: Path, report: dict) -> dict:
    print((out / "report.md").read_text())
    print(f"report: {out / 'report.html'}")
    return report
