"""What happens before a run's first step: data, network, and a trial of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.fabric import Fabric
from torch import nn

from cfnseg.config import Config
from cfnseg.data.dataset import Dataset
from cfnseg.data.formats.class_folders import ImageSet
from cfnseg.errors import UserError
from cfnseg.models.build import build_model
from cfnseg.models.trial import try_model, try_own_model, unused_parameters
from cfnseg.models.weights import OWN, Start, start_from
from cfnseg.training.checkpoint import fingerprint
from cfnseg.training.hosts import from_main, same_everywhere, together
from cfnseg.training.tasks import Task

if TYPE_CHECKING:
    from cfnseg.training.run import Run


def open_data(
    config: Config, task: Task, fabric: Fabric, own: tuple[Dataset, Dataset] | None
) -> tuple[Dataset | ImageSet, Dataset | ImageSet, str]:
    """Training and validation data, the same in every process, and the name of the second's split.

    Rank 0 downloads what is missing; then every host that does not share its folder does.

    Args:
        config: names the data.
        task: opens them.
        fabric: the processes.
        own: a user's data, in place of what the config names.

    Raises:
        UserError: no such data, or the classes or the processes' images differ.
    """
    data, split = config.data, config.data.val_split
    if data.download and not own:
        from_main(fabric, lambda: task.open_data(True) and None)
        if fabric.world_size > 1:
            together(fabric, lambda: fabric.local_rank or task.open_data(True))
    train, val = own or together(fabric, task.open_data)
    if val.labels.to_dict() != train.labels.to_dict():
        raise UserError(
            "training and validation data have different classes", code=2, everywhere=True
        )
    same_everywhere(fabric, fingerprint(train), "the training images or classes")
    same_everywhere(fabric, "\n".join(val.names), "the validation images")
    if data.holdout and not own:
        images = f"{data.holdout} images" if config.model.level == "image" else f"{data.holdout}*"
        split = f"{data.train_split}, held out {images}"
    return train, val, split


def build_network(
    config: Config, data: Dataset | ImageSet, fabric: Fabric, own: nn.Module | None, fresh: bool
) -> tuple[nn.Module, Start]:
    """The network on its device, and what fine-tuning begins with.

    Args:
        config: model, seed and train.init.
        data: the training data, whose classes the network has.
        fabric: the processes.
        own: a user's network, in place of what the config names.
        fresh: load start weights, as no checkpoint follows.
    """
    train, settings, start = config.train, config.model, Start([], "")
    torch.manual_seed(train.seed)  # the same initial weights in every process
    network = own
    if network is None:
        network = build_model(settings, len(data.labels), fresh and not train.init)
    if fresh and train.init:
        start = start_from(network, train.init, settings, data.labels)
    if fabric.world_size > 1:
        frozen = set(unused_parameters(network))  # so that a step need not search for them
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name not in frozen)
    memory = torch.channels_last if train.channels_last else torch.preserve_format
    return network.to(fabric.device, memory_format=memory), start


def try_network(network: nn.Module, config: Config, classes: int, world: int, parts: int) -> None:
    """One forward pass: what cannot train raises UserError now.

    Args:
        network, config, classes: what is tried.
        world: processes.
        parts: parts of a process's batch.
    """
    if config.model.name == OWN:
        try_own_model(network, classes, config.data.crop)
        return
    # batch norms count over the processes, and see a part of the batch at a time
    smallest = config.train.batch // world // max(1, parts) * world
    try_model(network, config.model, config.data.crop, max(1, smallest))


def introduction(run: Run) -> str:
    """What a run says before its first step."""
    train, parts, step = run.config.train, run.state["parts"], run.state["step"]
    table = run.segmenter.parameter_table().items()
    lines = [
        f"{run.config.name}: {len(run.data.names)} training and {len(run.val.names)} validation "
        f"images, {len(run.data.labels)} classes, {run.total} steps of {train.batch}"
        f"{f' in {parts} parts' if parts > 1 else ''} on {run.world} x {run.fabric.device.type} "
        f"{train.precision}",
        "parameters: " + "  ".join(f"{part} {count:,}" for part, count in table),
    ]
    if train.init and not step:
        new = run.start.untouched
        named = f"new are {len(new)} tensors, first {', '.join(new[:3])}" if new else ""
        lines.append(
            "starts from " + "; ".join(filter(None, [train.init, named, run.start.classes]))
        )
    if step:
        lines.append(f"resumed at step {step} of {run.total}")
    if run.extended:
        lines.append(
            f"{run.total} steps in place of {run.total - run.extended}: the learning rate goes on "
            f"as in a run of {run.total} steps"
        )
    return "\n".join(lines)
