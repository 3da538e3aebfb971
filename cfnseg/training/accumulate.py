"""A batch in parts, where memory is short, and the fewest parts that fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from cfnseg.config import Config
from cfnseg.data.loader import Batch
from cfnseg.errors import UserError
from cfnseg.models.segmenter import as_segmenter
from cfnseg.models.trial import rehearsal
from cfnseg.training.hosts import gather, together
from cfnseg.training.loss import side_weight
from cfnseg.training.tasks import Task, forward


def split(batch: dict[str, Any], parts: int) -> list[Batch]:
    """The batch in ``parts`` parts of nearly the same number of images; fewer if it has fewer
    images."""
    images = len(batch["image"])
    ends = [images * i // min(parts, images) for i in range(min(parts, images) + 1)]
    return [
        Batch({k: v[start:stop] for k, v in batch.items()}) for start, stop in zip(ends, ends[1:])
    ]


def find_parts(network: nn.Module, config: Config, classes: int, task: Task, fabric: Fabric) -> int:
    """`fewest_parts` of a process's batch, by trial steps; the same in every process."""
    side = side_weight(as_segmenter(network), config.loss, 0.0)

    def attempt(images: int) -> None:
        with rehearsal(network) as trial, fabric.autocast():
            # the optimizer's state needs room too
            room = [torch.empty_like(p) for p in network.parameters() for _ in range(2)]
            batch = random_batch(config, images, classes, fabric.device)
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


def random_batch(config: Config, images: int, classes: int, device: torch.device) -> Batch:
    """A batch of random pixels and labels, as training has them."""
    size = images, *config.data.crop
    image = torch.randint(0, 256, (images, 3, *config.data.crop), dtype=torch.uint8, device=device)
    if config.train.channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
    if config.model.level == "image":
        return Batch(
            {"image": image, "target": torch.zeros(images, dtype=torch.int64, device=device)}
        )
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device).repeat(images, 1)
    return Batch(
        {
            "image": image,
            "mask": torch.randint(0, classes, size, dtype=torch.uint8, device=device),
            "region": whole,
        }
    )
