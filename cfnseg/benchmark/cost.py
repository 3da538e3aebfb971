"""What a system costs: parameters by part, multiply-accumulates, the training step over its bare encoder's, memory."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from cfnseg.config import Config
from cfnseg.data.loader import Batch
from cfnseg.engine.classification import Classification
from cfnseg.engine.hardware import keep_freed_memory
from cfnseg.engine.segmentation import Segmentation
from cfnseg.models.build import build_model

ROUNDS = 3


def cost_of(config: Config, size: tuple[int, int], classes: int) -> dict[str, Any]:
    """Measure one system, in float32, on random images.

    Args:
        config: its config; batch and memory format are the config's, the device is CUDA where there is one.
        size: (H, W) of the images.
        classes: C.

    Returns:
        parameters: by part; gmacs: 1e9 multiply-accumulates of one image's forward (convolutions and matrix products);
        step_seconds: median training step (forward, loss, backward); step_ratio: median ratio to forward and backward of the
        undilated encoder alone, in turns; peak_mib: what the first step adds to the process's (CUDA: allocator's) peak.
    """
    pixel = config.model.level == "pixel"
    cuda = config.train.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if not cuda:
        keep_freed_memory()
    memory = torch.channels_last if config.train.channels_last else torch.contiguous_format
    net = build_model(config.model, classes, pretrained=False).to(device, memory_format=memory)
    count = config.train.batch
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8).to(device, memory_format=memory)
    truth = torch.randint(0, classes, (count, *size) if pixel else (count,), device=device)
    batch = Batch(image=images, mask=truth.byte(), region=None) if pixel else Batch(image=images, target=truth)
    task = Segmentation(config) if pixel else Classification(config)

    def step() -> None:
        task.loss(net, batch, 1, config.loss.side).backward()

    before = _peak(cuda)
    step()
    peak = _peak(cuda) - before
    # peers may dilate their encoder, which is part of their cost
    plain = build_model(replace(config.model, name="cfn", strides=(4, 8, 16, 32)) if pixel else config.model, classes, pretrained=False)
    trunk = plain.encoder.to(device, memory_format=memory)

    def bare() -> None:
        sum(stage.float().mean() for stage in trunk(images)).backward()

    times = []
    for turn in range(ROUNDS + 1):  # one to warm up
        row = []
        for work in (bare, step):
            net.zero_grad()
            trunk.zero_grad()
            row.append(_seconds(work, cuda))
        times += [row] * (turn > 0)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        net.eval()(images[:1])
    return {"parameters": net.parameter_table(), "gmacs": counter.get_total_flops() / 2e9,
            "step_seconds": statistics.median(s for _, s in times),
            "step_ratio": statistics.median(s / b for b, s in times), "peak_mib": peak / 2**20,
            "device": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"}


def _seconds(work, cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _peak(cuda: bool) -> int:
    """Bytes: the most that was allocated (CUDA) or resident (this process) so far."""
    if cuda:
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
