"""Validation between steps: the score, the best weights so far, and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from cfnseg.errors import UserError, first_line
from cfnseg.evaluation.overlap import OverlapEvaluation
from cfnseg.evaluation.segmentation import Evaluation
from cfnseg.models.weights import save_weights
from cfnseg.training.hosts import from_main

if TYPE_CHECKING:
    from cfnseg.training.run import Run

MOST = 8  # classes in a line


def without_pixels(confusion: np.ndarray, names: Sequence[str], first: bool) -> list[str]:
    """Lines on classes that no pixel is predicted as, or that the masks lack.

    Args:
        confusion: (C, C) pixels, true class by predicted class.
        names: of the classes.
        first: this validation is the first; the masks lack the same in the others.
    """
    true, predicted = confusion.sum(1), confusion.sum(0)
    missed = [n for n, a, b in zip(names, true, predicted) if a and not b]
    absent = [n for n, a in zip(names, true) if not a and first]
    kinds = ("never predicted", missed), ("not in the validation masks", absent)
    return [
        f"{kind}: {', '.join(found[:MOST])}"
        + f" and {len(found) - MOST} more" * (len(found) > MOST)
        for kind, found in kinds
        if found
    ]


def validate(run: Run) -> tuple[dict[str, float], Path | None]:
    """Score the network that a run keeps, and write its weights if they are the best so far.

    Returns:
        The scores by the names that loggers show, and the picture's file, if there is one.

    Raises:
        UserError: out of memory, or a file that cannot be read or written.
        Stopped: a process was asked to stop; all of them raise it.
    """
    data, state, step = run.config.data, run.state, run.state["step"]
    epoch = step / run.per_epoch
    try:
        result = run.task.evaluate(
            run.averaged,
            run.val,
            device=run.fabric.device,
            rank=run.rank,
            world=run.world,
            precision=run.fabric.autocast,
            stopping=run.stopping,
            title="" if run.rank else "validate",
        )
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"out of memory in validation after step {step} ({first_line(error)}); the training is "
            "saved. Lower --model.test-scale in a new run, or use a GPU with more memory"
        ) from None
    if math.isnan(result.headline):
        raise UserError(
            f"validation counts no pixel: the {len(run.val.names)} masks are ignored (255) whole; "
            "cfnseg doctor shows which masks are",
            everywhere=True,
        )
    first, better = not state["validated"], result.headline > state["best"]
    state |= {"validated": step, "since_best": 0 if better else state["since_best"] + 1}
    if better:
        state["best"] = result.headline

    picture = run.folder / "pictures" / f"step_{step:06d}.jpg" if run.task.draw else None

    def keep() -> None:
        if better:
            score = {"data": data.name, "split": run.split, "images": len(result.names)}
            score |= result.score()
            if run.config.model.level == "image":
                score |= {"crop": list(data.crop), "held_out": int(data.holdout or 0)}
            score |= {"step": step, "steps": run.total, "seed": run.config.train.seed}
            path = run.folder / "best.safetensors"
            save_weights(path, run.averaged, run.config.model, run.data.labels, score)
        if picture:
            run.task.draw(run.averaged, run.val, picture)

    from_main(run.fabric, keep)
    run.log.write({"step": step, "epoch": epoch, **result.log_row()})
    run.log.say(f"epoch {epoch:.0f}  {result.line()}{'  best' if better else ''}")
    if isinstance(result, Evaluation):
        for line in without_pixels(result.confusion, run.data.labels.names, first):
            run.log.say(f"  {line}")
    scores = {key.replace("val_", "val/", 1): value for key, value in result.log_row().items()}
    if isinstance(result, Evaluation | OverlapEvaluation):
        names = (name.replace("/", "_") for name in run.data.labels.names)
        scores |= {f"val_iou/{name}": float(iou) for name, iou in zip(names, result.scores.iou)}
    return scores | {"val/best": state["best"]}, picture
