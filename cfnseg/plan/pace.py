"""This machine, and how fast it trains: a few real steps."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cfnseg.config import Config
from cfnseg.data.dataset import Dataset, read_sample
from cfnseg.errors import UserError, first_line
from cfnseg.models.build import build_model
from cfnseg.timing import interleaved, peak_memory
from cfnseg.training.hardware import keep_freed_memory
from cfnseg.training.optim import build_optimizer
from cfnseg.training.start import random_batch
from cfnseg.training.tasks import forward, segmentation

TRIED = 2  # images of the step whose memory is measured
ROUNDS = 3  # timed steps
SAMPLES = 4  # training samples that are timed


@dataclass(frozen=True)
class Machine:
    """Where the run will be.

    Attributes:
        cuda: is there a GPU?
        name: of the device.
        cores: of the CPU that this process may use.
        memory: free bytes, of the GPU if there is one.
    """

    cuda: bool
    name: str
    cores: int
    memory: int


@dataclass(frozen=True)
class Pace:
    """What training costs.

    Attributes:
        pixel_seconds: of a step, for each pixel of its crops.
        pixel_bytes: a step's peak, for each pixel of its crops; 0 if unknown.
        sample_seconds: to read and augment one sample, on one core.
    """

    pixel_seconds: float
    pixel_bytes: float
    sample_seconds: float


def this_machine() -> Machine:
    """The machine that runs this."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return Machine(True, torch.cuda.get_device_name(), cores or 1, free)
    return Machine(False, f"CPU, {cores} cores", cores or 1, _free_memory())


def _free_memory() -> int:
    """Bytes that this process may still take, on Linux; else 4 GiB."""
    meminfo, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if not meminfo.is_file():
        return 4 << 30
    free = 1024 * int(re.search(r"MemAvailable:\s+(\d+)", meminfo.read_text())[1])
    own = limit.read_text().strip() if limit.is_file() else "max"
    return min(free, int(own)) if own.isdigit() else free


def measure_pace(config: Config, data: Dataset) -> Pace:
    """Measure steps of the config's batch and crops, with weights drawn at random.

    Memory is measured with two images, and grows in proportion to the pixels.

    Args:
        config: model, data.crop, train; a draft of the plan.
        data: the training data, for the time of a sample.

    Raises:
        UserError: a sample that cannot be read, or a step does not fit the memory.
    """
    cuda = config.train.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    classes, task = len(data.labels), segmentation(config)
    net = build_model(config.model, classes, pretrained=False).to(device, memory_format=layout)
    net.train()
    optimizer = build_optimizer(net, config.optim)

    def step(batch: dict) -> None:
        with torch.autocast(
            device.type, torch.bfloat16, enabled=config.train.precision == "bf16-mixed"
        ):
            loss = task.loss(forward(net, batch), batch, side=0.0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    area, count = int(np.prod(config.data.crop)), config.train.batch
    few = random_batch(config, min(TRIED, count), classes, device)
    batch = random_batch(config, count, classes, device)
    try:
        peak = peak_memory(lambda: step(few), cuda)
        if not cuda:
            keep_freed_memory()  # as in training
        # the fastest: other work on the machine only slows a step
        seconds = interleaved([lambda: step(batch)], ROUNDS, cuda).min()
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"a trial step of {count} images needs more memory: {first_line(error)}"
        ) from None
    transform = task.make_transform((124, 116, 104))
    started = time.perf_counter()
    for index in range(min(SAMPLES, len(data.names))):
        transform(*read_sample(data, index), data.names[index], index)
    each = (time.perf_counter() - started) / min(SAMPLES, len(data.names))
    return Pace(float(seconds) / (count * area), (peak or 0) / (len(few["image"]) * area), each)
