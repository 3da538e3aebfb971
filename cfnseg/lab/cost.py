"""The cost of a system: parameters, multiply-accumulates, memory, time relative to its encoder."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cfnseg.config import Config
from cfnseg.data.loader import Batch
from cfnseg.models.build import build_model
from cfnseg.models.folding import folded
from cfnseg.ops import dense_argmax
from cfnseg.timing import interleaved, peak_memory
from cfnseg.training.hardware import keep_freed_memory
from cfnseg.training.tasks import classification, forward, segmentation

PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def cost_of(config: Config, size: tuple[int, int], classes: int, rounds: int = 3) -> dict[str, Any]:
    """Measure one system on random images, on CUDA where there is a GPU.

    Args:
        config: gives model, batch, compilation and memory format; on CUDA also the precision. A CPU
            computes in float32: most CPUs only imitate half precision, at ten times the time.
        size: (H, W) of the images.
        classes: C.
        rounds: timed runs, interleaved with the encoder's.

    Returns:
        parameters: by part.
        gmacs: 1e9 multiply-accumulates of one image's forward (convolutions, matrix products), as
            inference runs it (`cfnseg.models.folding.folded`).
        head_gmacs: gmacs less the undilated encoder's.
        device, precision.
        For <kind> "step" (forward, loss, backward) and "infer" (folded forward, class map):
        <kind>_seconds: median; <kind>_range: 10th and 90th percentile.
        <kind>_encoder: median seconds of the undilated encoder alone.
        <kind>_ratio: median ratio to the encoder.
        <kind>_over_eager: median ratio to the same system without compilation; None if eager.
        <kind>_peak_mib: what it adds to the memory in use, gradients included; None if unknown.
    """
    pixel = config.model.level == "pixel"
    cuda = config.train.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    net = build_model(config.model, classes, pretrained=False).to(device, memory_format=layout)
    # decoders may dilate their encoder, which is part of their cost
    plain = replace(config.model, name="cfn", strides=(4, 8, 16, 32)) if pixel else config.model
    trunk = build_model(plain, classes, pretrained=False).encoder.to(device, memory_format=layout)
    count = config.train.batch
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8)
    images = images.to(device, memory_format=layout)
    truth = torch.randint(0, classes, (count, *size) if pixel else (count,), device=device)
    batch = Batch(image=images, target=truth)
    if pixel:
        batch = Batch(image=images, mask=truth.byte(), region=None)
    task = segmentation(config) if pixel else classification(config)
    lean = folded(net.eval()).to(memory_format=layout)
    macs = [_macs(model, images[:1]) for model in (lean, trunk.eval())]
    compiled, used, bare = (
        torch.compile(m) if config.train.compile else m for m in (net, lean, trunk)
    )
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
        with cast:
            loss = task.loss(forward(model, batch), batch, side=config.loss.side)
        loss.backward()
        net.zero_grad()

    def encoder_step() -> None:
        with cast:
            stages = bare(images)
        sum(stage.float().mean() for stage in stages).backward()
        trunk.zero_grad()

    found: dict[str, Any] = {
        "parameters": net.parameter_table(),
        "gmacs": macs[0],
        "head_gmacs": macs[0] - macs[1],
        "precision": precision,
        "device": f"CPU, {torch.get_num_threads()} threads",
    }
    if cuda:
        found["device"] = torch.cuda.get_device_name()
    kinds = {"infer": (encode, infer, used, lean), "step": (encoder_step, step, compiled, net)}
    for name, (_, whole, run, _) in kinds.items():
        net.train(name == "step")
        peak = peak_memory(functools.partial(whole, run), cuda)
        found[f"{name}_peak_mib"] = None if peak is None else peak / 2**20
    if not cuda:
        keep_freed_memory()  # as in training
    for name, (alone, whole, run, uncompiled) in kinds.items():
        net.train(name == "step")
        trunk.train(name == "step")
        eager = [functools.partial(whole, uncompiled)] * config.train.compile
        times = interleaved([alone, functools.partial(whole, run), *eager], rounds, cuda)
        seconds = times[:, 1]
        found[f"{name}_seconds"] = float(np.median(seconds))
        found[f"{name}_range"] = np.percentile(seconds, [10, 90]).tolist()
        found[f"{name}_encoder"] = float(np.median(times[:, 0]))
        found[f"{name}_ratio"] = float(np.median(seconds / times[:, 0]))
        found[f"{name}_over_eager"] = float(np.median(seconds / times[:, 2])) if eager else None
    return found


@torch.no_grad()
def _macs(model: nn.Module, images: Tensor) -> float:
    """1e9 multiply-accumulates of a forward pass."""
    with FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops() / 2e9
