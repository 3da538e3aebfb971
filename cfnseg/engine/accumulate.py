"""A batch in parts, where memory is short, and the fewest parts that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cfnseg.config import Config
from cfnseg.data.loader import Batch
from cfnseg.errors import UserError


def split(batch: dict[str, Any], parts: int) -> list[Batch]:
    """The batch in ``parts`` parts of nearly the same number of images; fewer if it has fewer images."""
    images = len(batch["image"])
    ends = [images * i // min(parts, images) for i in range(min(parts, images) + 1)]
    return [Batch({k: v[start:stop] for k, v in batch.items()}) for start, stop in zip(ends, ends[1:])]


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
            raise UserError("one image at a time is too much for the device's memory; use a smaller --data.crop, "
                            "--train.precision bf16-mixed or a smaller encoder")
        parts = min(2 * parts, images)


@contextmanager
def trial_batch(network: nn.Module, config: Config, images: int, classes: int, device: torch.device) -> Iterator[Batch]:
    """A random batch for a step that only tests the memory; room for the optimizer's state is taken.

    On leaving, gradients, statistics of batch norms, mode and random state are as they were.
    """
    buffers = [buffer.clone() for buffer in network.buffers()]
    training, cuda = network.training, [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(cuda):
            room = [torch.empty_like(p) for p in network.parameters() for _ in range(2)]
            network.train()
            pixels = {"mask": torch.randint(0, classes, (images, *config.data.crop), dtype=torch.uint8, device=device),
                      "region": torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device).repeat(images, 1)}
            labels = {"target": torch.zeros(images, dtype=torch.int64, device=device)}
            image: Tensor = torch.randint(0, 256, (images, 3, *config.data.crop), dtype=torch.uint8, device=device)
            if config.train.channels_last:
                image = image.contiguous(memory_format=torch.channels_last)
            yield Batch({"image": image, **(labels if config.model.level == "image" else pixels)})
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            del room
    finally:
        network.train(training)
        network.zero_grad()
        with torch.no_grad():
            for buffer, before in zip(network.buffers(), buffers):
                buffer.copy_(before)
