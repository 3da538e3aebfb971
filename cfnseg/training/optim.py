"""Parameter groups, the learning-rate schedule and weight averaging."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cfnseg.config import Optim


def build_optimizer(model: nn.Module, settings: Optim) -> Optimizer:
    """SGD or AdamW over groups of encoder, fusion and the rest, each in weights, biases and what
    norms have.

    Biases and norms never decay; fusion deltas do (towards equal fusion), whatever their shape.
    Each group carries its learning-rate factor as ``factor``.

    The update is torch's fused kernel where every parameter is a float tensor on a CPU or on CUDA.
    A checkpoint continues so whichever update wrote it.
    """
    of_norms = {
        id(p)
        for m in model.modules()
        if hasattr(m, "running_mean") or isinstance(m, nn.LayerNorm)
        for p in m.parameters(False)
    }
    groups: dict[tuple[str, str], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = (
            "encoder" if name.startswith("encoder.") else "fusion" if "fusion." in name else "head"
        )
        if id(parameter) in of_norms:
            kind = "norm"
        elif name.endswith("bias"):
            kind = "bias"
        else:
            kind = "weight" if parameter.ndim > 1 or name.endswith("delta") else "norm"
        groups.setdefault((part, kind), []).append(parameter)
    rate = {"encoder": settings.encoder_lr, "fusion": settings.fusion_lr, "head": 1.0}
    parameters = []
    for (part, kind), group in groups.items():
        factor = rate[part] * (settings.bias_lr if kind == "bias" else 1.0)
        parameters.append(
            {
                "params": group,
                "factor": factor,
                "lr": settings.lr * factor,
                "weight_decay": settings.weight_decay if kind == "weight" else 0.0,
            }
        )
    fused = all(
        p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in model.parameters()
    )
    if settings.name == "sgd":
        optimizer: Optimizer = SGD(
            parameters, lr=settings.lr, momentum=settings.momentum, fused=fused
        )
        if settings.momentum:
            # the gradient scaler may skip a fused first step: torch's new buffers would stay unset
            for p in model.parameters():
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    else:
        optimizer = AdamW(parameters, lr=settings.lr, betas=(settings.momentum, 0.999), fused=fused)

    def keep_update(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        # torch would take the kind of update, and the step counts' device, from the file
        return state | {
            "param_groups": [group | {"fused": fused} for group in state["param_groups"]]
        }

    optimizer.register_load_state_dict_pre_hook(keep_update)
    return optimizer


def clip_gradients(fabric: Fabric, optimizer: Optimizer, largest: float) -> Tensor:
    """Bring gradients to their true scale and their norm to ``largest`` at most; nothing waits for
    the device.

    In place of `Fabric.clip_gradients`, which refuses fused optimizers under 16-mixed.

    Args:
        fabric: whose precision may scale the loss.
        optimizer: what `build_optimizer` built, before or after ``fabric.setup``.
        largest: the largest norm; 0 = no clipping.

    Returns:
        () float norm of all gradients before clipping.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)  # Fabric wraps it
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    if scaler is not None:
        scaler.unscale_(optimizer)
    parameters = [
        p for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    if largest:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm


def schedule(step: int, total: int, settings: Optim) -> float:
    """The learning rate's factor at a step (0-based): linear warm-up times (1 - step / total) **
    power, or 0.1 ** drops passed.

    A function of the step alone, so a resumed run has nothing to restore.
    """
    warm = max(1, round(settings.warmup * total))
    rising = min(1.0, (step + 1) / warm)
    if settings.schedule == "step":
        return rising * 0.1 ** sum(step >= drop * total for drop in settings.drops)
    return rising * (1 - step / total) ** settings.power


def set_learning_rate(optimizer: Optimizer, step: int, total: int, settings: Optim) -> float:
    """Set every group's learning rate for ``step``; returns the head's."""
    rate = settings.lr * schedule(step, total, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    return rate


def build_ema(model: nn.Module, settings: Optim) -> AveragedModel | None:
    """The moving average of weights and batch-norm statistics, or None if ``settings.ema`` is 0."""
    if not settings.ema:
        return None
    average = get_ema_multi_avg_fn(settings.ema)

    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        # torch hands over lists of one dtype; what is counted or indexes has no average
        if averaged[0].is_floating_point():
            average(averaged, current, count)
        else:
            for old, new in zip(averaged, current):
                old.copy_(new)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
