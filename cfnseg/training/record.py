"""Loss and gradient norm of the last steps, left on the device until somebody has to know."""

from __future__ import annotations

from typing import NamedTuple

import torch
from lightning.fabric import Fabric
from torch import Tensor


class Read(NamedTuple):
    """One step as the host sees it.

    Attributes:
        step: 1-based.
        loss: of the total batch.
        norm: of the gradient before clipping.
        stop: a process was asked to stop.
        names: the images that this process had.
    """

    step: int
    loss: float
    norm: float
    stop: bool
    names: list[str]


class StepRecord:
    """The last steps' values on the device. `read` is the only host synchronisation of a step.

    Args:
        fabric: the processes; values are averaged over them when they are read.
        every: steps that fit before they must be read.
    """

    def __init__(self, fabric: Fabric, every: int) -> None:
        self.fabric, self.every = fabric, every
        self.rows = torch.zeros(every, 3, device=fabric.device)
        self.steps: list[tuple[int, list[str]]] = []
        self.reads = 0

    def add(self, step: int, loss: Tensor, norm: Tensor, stop: bool, names: list[str]) -> None:
        """Keep a step; nothing waits for the device.

        Args:
            step: 1-based.
            loss, norm: 0-d tensors on the device.
            stop: this process was asked to stop.
            names: the images of this process.
        """
        row = self.rows[len(self.steps)]
        row[0].copy_(loss.detach())
        row[1].copy_(norm.detach())
        row[2].fill_(float(stop))
        self.steps.append((step, names))

    def read(self) -> list[Read]:
        """The steps since the last `read`; waits until the device has finished them."""
        if not self.steps:
            return []
        self.reads += 1
        rows = self.rows[: len(self.steps)]
        if self.fabric.world_size > 1:  # processes must agree on the step after which they stop
            rows = self.fabric.all_reduce(rows, reduce_op="mean")
        found = [
            Read(step, loss, norm, stop > 0, names)
            for (step, names), (loss, norm, stop) in zip(self.steps, rows.tolist())
        ]
        self.steps = []
        return found
