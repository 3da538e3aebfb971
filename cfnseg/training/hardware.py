"""Set up once a process: allocator, devices and processes, synchronised batch norm."""

from __future__ import annotations

import ctypes
import os
import sys
from datetime import timedelta
from typing import Any

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from lightning.fabric.strategies import DDPStrategy
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from cfnseg.config import Train
from cfnseg.errors import UserError


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks in place of giving each back to the system and faulting it
    in again.

    A CPU training step allocates and frees hundreds of MB; with glibc's defaults page faults are
    more than half of its time (docs/performance.md). Does nothing where the C library is another.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # glibc's M_MMAP_MAX, M_TRIM_THRESHOLD (never), M_TOP_PAD (256 MiB), M_ARENA_MAX
        for option, value in ((-4, 0), (-1, -1), (-2, 1 << 28), (-8, 1)):
            mallopt(option, value)


class _Mixed(MixedPrecision):
    """Autocast around the forward pass; inputs stay as they are.

    Fabric would round every float input, the crop's region among them, to 8 or 11 bits.
    """

    def convert_input(self, data: Any) -> Any:
        return data


def build_fabric(settings: Train) -> Fabric:
    """Fabric for this process: one device, or this process's share of what ``torchrun`` started.

    Sets TF32 and cuDNN's search for this process as ``settings`` say.

    Raises:
        UserError: CUDA is asked for and not there, or a process has no GPU of its own.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if settings.accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "train.accelerator cuda: no CUDA device is available; use --train.accelerator cpu",
            code=2,
        )
    cuda = settings.accelerator != "cpu" and torch.cuda.is_available()
    if not cuda:
        keep_freed_memory()
    elif local > torch.cuda.device_count():
        raise UserError(
            f"{local} processes on this host need a GPU each, and there are "
            f"{torch.cuda.device_count()}; lower --nproc-per-node",
            code=2,
        )
    else:
        torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = settings.tf32
        torch.backends.cudnn.benchmark = settings.cudnn_benchmark
    # rank 0 may download, count class weights or draw while the others wait for it
    strategy = DDPStrategy(timeout=timedelta(hours=2)) if world > 1 else "auto"
    device = "cuda" if cuda else "cpu"
    arithmetic = (
        {"precision": settings.precision}
        if settings.precision == "32-true"
        else {"plugins": _Mixed(settings.precision, device)}
    )
    fabric = Fabric(
        accelerator=device, devices=local, num_nodes=world // local, strategy=strategy, **arithmetic
    )
    fabric.launch()
    return fabric


def leave_processes() -> None:
    """End this process's part in a run of several while the interpreter is whole; nothing happens
    in a run of one.

    Fabric does it at exit for NCCL only. With gloo, a thread of the process group may still hold a
    tensor of the last collective. Its release while Python shuts down aborts the process (pytorch
    issue 190489), and torchrun then reports a finished run as failed.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class SyncBatchNorm(nn.Module):
    """Batch norm over the batches of all processes, on any device (torch's own is for GPUs).

    Takes over the parameters, buffers and, of timm's fused layers, the activation of ``norm``.
    Every process must have the same number of samples.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.eps, self.momentum = norm.eps, norm.momentum
        self.drop, self.act = (
            getattr(norm, "drop", nn.Identity()),
            getattr(norm, "act", nn.Identity()),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same."""
        if not self.training:
            y = F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
            return self.act(self.drop(y))
        world = torch.distributed.get_world_size()
        values = x.float()
        # two passes, as the difference of large squares would lose the variance
        mean = all_reduce(values.mean((0, 2, 3))) / world
        centred = values - mean[:, None, None]
        var = all_reduce(centred.square().mean((0, 2, 3))) / world
        with torch.no_grad():
            count = x.numel() / x.shape[1] * world
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / max(count - 1, 1), self.momentum)
        scale = (var + self.eps).rsqrt()
        if self.weight is None:  # a norm without gain and bias
            y = centred * scale[:, None, None]
        else:
            y = centred * (self.weight * scale)[:, None, None] + self.bias[:, None, None]
        return self.act(self.drop(y.to(x.dtype)))


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with every batch norm counting over all processes: torch's layer on CUDA,
    `SyncBatchNorm` elsewhere."""
    if device.type == "cuda":
        return convert_sync_batchnorm(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, SyncBatchNorm(child))
    return model
