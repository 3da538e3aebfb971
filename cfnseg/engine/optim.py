"""Parameter groups, the learning-rate schedule and weight averaging."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cfnseg.config import Optim


def build_optimizer(model: nn.Module, settings: Optim) -> Optimizer:
    """SGD or AdamW over six groups: encoder, fusion and the rest, each with and without weight decay.

    Biases and norms never decay; fusion deltas do (towards equal fusion), whatever their shape. Each group carries its
    learning-rate factor as ``factor``.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = "encoder" if name.startswith("encoder.") else "fusion" if "fusion." in name else "head"
        decays = name.endswith("delta") or (parameter.ndim > 1 and not name.endswith("bias"))
        groups.setdefault((part, decays), []).append(parameter)
    factor = {"encoder": settings.encoder_lr, "fusion": settings.fusion_lr, "head": 1.0}
    parameters = [{"params": group, "factor": factor[part], "lr": settings.lr * factor[part],
                   "weight_decay": settings.weight_decay if decays else 0.0} for (part, decays), group in groups.items()]
    if settings.name == "sgd":
        return SGD(parameters, lr=settings.lr, momentum=settings.momentum)
    return AdamW(parameters, lr=settings.lr, betas=(settings.momentum, 0.999))


def schedule(step: int, total: int, settings: Optim) -> float:
    """The learning rate's factor at a step (0-based): linear warm-up times (1 - step / total) ** power.

    A function of the step alone, so a resumed run has nothing to restore.
    """
    warm = max(1, round(settings.warmup * total))
    return min(1.0, (step + 1) / warm) * (1 - step / total) ** settings.power


def set_learning_rate(optimizer: Optimizer, step: int, total: int, settings: Optim) -> float:
    """Set every group's learning rate for ``step``; returns that of the head."""
    rate = settings.lr * schedule(step, total, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    return rate


def build_ema(model: nn.Module, settings: Optim) -> AveragedModel | None:
    """The moving average of weights and batch-norm statistics, or None if ``settings.ema`` is 0."""
    if not settings.ema:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
