"""What a system costs: parameters by part, multiply-accumulates, training step and inference over its bare encoder's, memory."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cfnseg.config import Config
from cfnseg.data.loader import Batch
from cfnseg.lab.timing import Peak, in_turns
from cfnseg.models.build import build_model
from cfnseg.ops import dense_argmax
from cfnseg.training.hardware import keep_freed_memory
from cfnseg.training.tasks import classification, forward, segmentation

PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def cost_of(config: Config, size: tuple[int, int], classes: int, rounds: int = 3) -> dict[str, Any]:
    """Measure one system on random images.

    Args:
        config: its config; batch, compilation and memory format are the config's, the device is CUDA where there is one. The
            precision is the config's on CUDA and float32 on a CPU: most CPUs only imitate half precision, at ten times the time.
        size: (H, W) of the images.
        classes: C.
        rounds: how often each time is taken, in turns with the encoder's.

    Returns:
        parameters: by part; gmacs: 1e9 multiply-accumulates of one image's forward (convolutions and matrix products). For
        training (forward, loss, backward; "step") and inference (forward and class map; "infer"): <kind>_seconds, median;
        <kind>_range, its 10th and 90th percentile; <kind>_ratio, median ratio to the same of the undilated encoder alone;
        <kind>_encoder, the encoder's median seconds; <kind>_over_eager, where compiled, median ratio to the same system
        without compilation (else None); <kind>_peak_mib: what the first one adds to the memory in use; None
        where compiled on a CPU, as the compiler's memory would count. device, precision.
    """
    pixel = config.model.level == "pixel"
    cuda = config.train.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if not cuda:
        keep_freed_memory()
    memory = torch.channels_last if config.train.channels_last else torch.contiguous_format
    net = build_model(config.model, classes, pretrained=False).to(device, memory_format=memory)
    table = net.parameter_table()
    # peers may dilate their encoder, which is part of their cost
    plain = build_model(replace(config.model, name="cfn", strides=(4, 8, 16, 32)) if pixel else config.model, classes, pretrained=False)
    trunk = plain.encoder.to(device, memory_format=memory)
    count = config.train.batch
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8).to(device, memory_format=memory)
    truth = torch.randint(0, classes, (count, *size) if pixel else (count,), device=device)
    batch = Batch(image=images, mask=truth.byte(), region=None) if pixel else Batch(image=images, target=truth)
    task = segmentation(config) if pixel else classification(config)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        net.eval()(images[:1])
    gmacs = counter.get_total_flops() / 2e9
    compiled, bare = (torch.compile(m) if config.train.compile else m for m in (net, trunk))
    precision = config.train.precision if cuda else "32-true"
    kind = PRECISIONS[precision]
    cast = torch.autocast(device.type, kind, enabled=kind != torch.float32)

    def infer(model: nn.Module) -> None:
        with torch.inference_mode(), cast:
            output = model(images)
            if pixel:
                dense_argmax(output.pixel, size)

    def encode() -> None:
        with torch.inference_mode(), cast:
            bare(images)

    def step(model: nn.Module) -> None:
        net.zero_grad()
        with cast:
            loss = task.loss(forward(model, batch), batch, side=config.loss.side)
        loss.backward()

    def encoder_step() -> None:
        trunk.zero_grad()
        with cast:
            stages = bare(images)
        sum(stage.float().mean() for stage in stages).backward()

    found: dict[str, Any] = {"parameters": table, "gmacs": gmacs}
    peak = Peak(cuda)
    for name, training, alone, whole in (("infer", False, encode, infer), ("step", True, encoder_step, step)):
        works = [alone, functools.partial(whole, compiled), *[functools.partial(whole, net)] * config.train.compile]
        net.train(training)
        trunk.train(training)
        if cuda:
            peak = Peak(cuda)  # on a CPU memory that was freed stays: training's peak counts from before inference, whose is lower
        works[1]()
        found[f"{name}_peak_mib"] = None if config.train.compile and not cuda else peak.added() / 2**20
        times = in_turns(works, rounds, cuda)
        found[f"{name}_seconds"], found[f"{name}_encoder"] = float(np.median(times[:, 1])), float(np.median(times[:, 0]))
        found[f"{name}_range"] = np.percentile(times[:, 1], [10, 90]).tolist()
        found[f"{name}_ratio"] = float(np.median(times[:, 1] / times[:, 0]))
        found[f"{name}_over_eager"] = float(np.median(times[:, 1] / times[:, 2])) if config.train.compile else None
    return found | {"precision": precision, "device": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"}
