"""What happens before a run's first step: data, network, and a trial of both."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric import Fabric
from torch import nn

from cfnseg.config import Config
from cfnseg.data.band_statistics import count_bands
from cfnseg.data.bands import Bands
from cfnseg.data.dataset import Dataset, Layers, name_of_trained, shared_files
from cfnseg.data.dataset import fingerprint as fingerprint_of_files
from cfnseg.data.formats.class_folders import ImageSet
from cfnseg.data.loader import Batch
from cfnseg.errors import UserError
from cfnseg.models.build import build_model
from cfnseg.models.segmenter import as_segmenter, bands_of
from cfnseg.models.trial import rehearsal, try_model, try_own_model, unused_parameters
from cfnseg.models.weights import OWN, Start, start_from
from cfnseg.storage import write_atomic
from cfnseg.training.checkpoint import fingerprint
from cfnseg.training.hosts import from_main, gather, same_everywhere, together
from cfnseg.training.loss import side_weight
from cfnseg.training.tasks import Task, forward

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
    if config.model.output == "sigmoid":
        train, val = Layers(train), Layers(val)
    if val.labels.to_dict() != train.labels.to_dict():
        raise UserError(
            "training and validation data have different classes", code=2, everywhere=True
        )
    same_everywhere(fabric, fingerprint(train), "the training images or classes")
    same_everywhere(fabric, "\n".join(val.names), "the validation images")
    if data.fold and not own:
        split = f"{data.train_split}, fold {data.fold}"
    elif data.holdout and not own:
        images = f"{data.holdout} images" if config.model.level == "image" else f"{data.holdout}*"
        split = f"{data.train_split}, held out {images}"
    elif config.model.level == "pixel":
        split = name_of_trained(split, shared_files(val, train), len(val.names))
    return train, val, split


def bands_of_data(
    config: Config, data: Dataset, fabric: Fabric, folder: Path, kept: dict[str, Any] | None
) -> Bands | None:
    """The bands of a run with ``data.channels``; None for 8-bit RGB.

    Rank 0 counts mean and deviation once, and keeps ``<folder>/bands.json``. It counts again if an
    image file has changed; a resumed run has those of its checkpoint.

    Args:
        config: data and name.
        data: the training images.
        fabric: the processes.
        folder: the run's.
        kept: of the checkpoint to resume from, or None.
    """
    channels = config.data.channels
    if not channels:
        return None
    path = folder / "bands.json"

    def count() -> dict[str, Any]:
        known = f"{channels} {fingerprint_of_files(data, of_images=True)}"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(path.read_text())
            if found.pop("fingerprint") == known:
                return asdict(Bands.of(found))
        title = "count the bands"
        values = asdict(count_bands(data, channels, config.data.workers, title))
        text = json.dumps({"fingerprint": known} | values)
        write_atomic(path, lambda temporary: temporary.write_text(text))
        return values

    return Bands.of(from_main(fabric, lambda: kept or count()))


def build_network(
    config: Config,
    data: Dataset | ImageSet,
    fabric: Fabric,
    own: nn.Module | None,
    fresh: bool,
    bands: Bands | None = None,
) -> tuple[nn.Module, Start]:
    """The network on its device, and what fine-tuning begins with.

    Args:
        config: model, seed and train.init.
        data: the training data, whose classes the network has.
        fabric: the processes.
        own: a user's network, in place of what the config names.
        fresh: load start weights, as no checkpoint follows.
        bands: of the images where they are no 8-bit RGB.
    """
    train, settings, start = config.train, config.model, Start([], "")
    torch.manual_seed(train.seed)  # the same initial weights in every process
    network = own
    if network is None:
        network = build_model(settings, len(data.labels), fresh and not train.init, bands)
    if fresh and train.init:
        start = start_from(network, train.init, settings, data.labels)
    if fabric.world_size > 1:
        frozen = set(unused_parameters(network))  # so that a step need not search for them
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name not in frozen)
    memory = torch.channels_last if train.channels_last else torch.preserve_format
    return network.to(fabric.device, memory_format=memory), start


def find_parts(network: nn.Module, config: Config, classes: int, task: Task, fabric: Fabric) -> int:
    """`fewest_parts` of a process's batch, by trial steps; the same in every process."""
    side = side_weight(as_segmenter(network), config.loss, 0.0)

    def attempt(images: int) -> None:
        with rehearsal(network) as trial, fabric.autocast():
            # the optimizer's state needs room too
            room = [torch.empty_like(p) for p in network.parameters() for _ in range(2)]
            batch = random_batch(config, images, classes, fabric.device, bands_of(network))
            task.loss(forward(trial, batch), batch, side=side).backward()
            del room

    share = config.train.batch // fabric.world_size
    return max(gather(fabric, together(fabric, lambda: fewest_parts(attempt, share))))


def fewest_parts(attempt: Callable[[int], None], images: int) -> int:
    """The fewest parts, doubled from 1, in which ``images`` images fit the memory.

    Args:
        attempt: takes the images of a part; raises torch.OutOfMemoryError where they do not fit.
        images: a process's share of the batch.

    Raises:
        UserError: not even one image at a time fits.
    """
    parts = 1
    while True:
        try:
            attempt(-(-images // parts))
            return parts
        except torch.OutOfMemoryError:
            pass  # the exception holds what was allocated until here
        torch.cuda.empty_cache()
        if parts == images:
            raise UserError(
                "one image at a time is too much for the device's memory; use a smaller "
                "--data.crop, --train.precision bf16-mixed or a smaller encoder"
            )
        parts = min(2 * parts, images)


def random_batch(
    config: Config, images: int, classes: int, device: torch.device, bands: Bands | None = None
) -> Batch:
    """A batch of random pixels and labels, as training has them."""
    size = images, *config.data.crop
    channels, kind = (len(bands), getattr(torch, bands.type)) if bands else (3, torch.uint8)
    shape = images, channels, *config.data.crop
    image = torch.randint(0, 256, shape, dtype=torch.uint8, device=device).to(kind)
    if config.train.channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
    if config.model.level == "image":
        return Batch(
            {"image": image, "target": torch.zeros(images, dtype=torch.int64, device=device)}
        )
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device).repeat(images, 1)
    if config.model.output == "sigmoid":
        size, classes = (*size, classes), 2
    return Batch(
        {
            "image": image,
            "mask": torch.randint(0, classes, size, dtype=torch.uint8, device=device),
            "region": whole,
        }
    )


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
        *([f"validation: {run.split}"] if "," in run.split else []),
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
