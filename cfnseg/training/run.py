"""The training loop.

A run is a function of its config: images and crops of a step, learning rate and dropout masks
follow from (seed, step). So `last.ckpt` holds weights, optimizer and average, and a resumed run
ends in the same bits.

A step does not wait for the device. The host reads loss and gradient norm every `train.log_every`
steps and before it saves, so no checkpoint holds weights that are not finite.
"""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from cfnseg.config import Config, check
from cfnseg.config_values import to_dict
from cfnseg.data.dataset import Dataset
from cfnseg.data.formats.class_folders import ImageSet
from cfnseg.data.loader import Batch, StepBatches, steps_per_epoch, train_batches
from cfnseg.errors import UserError, first_line
from cfnseg.models.segmenter import as_segmenter
from cfnseg.models.weights import OWN
from cfnseg.storage import write_atomic
from cfnseg.training.balance import balance
from cfnseg.training.checkpoint import checkpoint_of, previous, restore, save_checkpoint
from cfnseg.training.hardware import build_fabric, synchronise_batch_norm
from cfnseg.training.hosts import from_main, gather, together
from cfnseg.training.log import Read, RunLog, StepRecord, environment
from cfnseg.training.loggers import Loggers, open_loggers
from cfnseg.training.loss import side_weight
from cfnseg.training.optim import build_ema, build_optimizer, clip_gradients, set_learning_rate
from cfnseg.training.start import (
    bands_of_data,
    build_network,
    find_parts,
    introduction,
    open_data,
    try_network,
)
from cfnseg.training.stopping import Stopped, Stopping
from cfnseg.training.tasks import classification, forward, segmentation, with_loss
from cfnseg.training.validation import validate

IMAGENET_MEAN = (124, 116, 104)  # colour of padding where an encoder has no mean of its own


class Run:
    """One training run: its parts, and the loop over its steps.

    Args:
        config: every setting.
        resume: continue from the run folder's last.ckpt.
        fabric: the processes; None = as the config and torchrun's environment say.
        data: training and validation data; None = as the config says.
        model: a network of the user's own, trained in place; None = as the config says.
        loss: (output, batch) -> scalar, a mean over the batch's images; None = as the config says.
        stopping: the requests to stop; None = those that arrive during `train`.
        loggers: who gets the run's numbers; None = as the config says. The caller ends them.

    Raises:
        UserError: settings, data or files that do not fit; the same one in every process.
    """

    def __init__(
        self,
        config: Config,
        resume: bool = False,
        fabric: Fabric | None = None,
        data: tuple[Dataset, Dataset] | None = None,
        model: nn.Module | None = None,
        loss: Callable | None = None,
        stopping: Stopping | None = None,
        loggers: Loggers | None = None,
    ) -> None:
        check(config)
        train = config.train
        if model is not None:
            config = replace(config, model=replace(config.model, name=OWN))
            if train.init:
                raise UserError(
                    "train.init is for models of cfnseg; load weights into your own before", code=2
                )
            if config.data.channels:
                raise UserError("data.channels is for models of cfnseg, not one of your own", 2)
        self.config, self.folder = config, Path(config.runs) / config.name
        self.fabric = fabric = fabric or build_fabric(train)
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.stopping = stopping or Stopping()
        self.loggers = loggers or open_loggers(config, fabric)
        task = (classification if config.model.level == "image" else segmentation)(config)
        self.task = with_loss(task, loss) if loss else task
        saved = from_main(fabric, lambda: previous(self.folder, resume))
        self.data, self.val, self.split = open_data(config, self.task, fabric, data)
        images, classes = len(self.data.names), len(self.data.labels)
        self.per_epoch = together(fabric, lambda: steps_per_epoch(images, train.batch))
        self.total = train.max_steps or train.epochs * self.per_epoch

        kept = saved.get("bands") if saved else None
        self.bands = bands_of_data(config, self.data, fabric, self.folder, kept)
        network, self.start = together(
            fabric,
            lambda: build_network(config, self.data, fabric, model, not resume, self.bands),
        )
        parts = train.accumulate or (saved["state"].get("parts") if saved else 0)
        parts = parts or find_parts(network, config, classes, self.task, fabric)
        together(fabric, lambda: try_network(network, config, classes, self.world, parts))
        self.network = synchronise_batch_norm(network, fabric.device) if self.world > 1 else network
        self.segmenter = as_segmenter(self.network)
        self.ema = build_ema(self.network, config.optim)
        optimizer = build_optimizer(self.network, config.optim)
        wrapped = torch.compile(self.network) if train.compile else self.network
        self.model, self.optimizer = fabric.setup(wrapped, optimizer)

        self.state = {"step": 0, "validated": 0, "best": -1.0, "since_best": 0, "parts": parts}
        self.extended = together(fabric, lambda: restore(self, saved)) if saved else 0
        text = json.dumps(to_dict(config) | {"environment": environment()}, indent=1)
        from_main(
            fabric,
            lambda: write_atomic(self.folder / "config.json", lambda path: path.write_text(text)),
        )
        step, validated = self.state["step"], self.state["validated"]
        self.log = RunLog(
            self.folder / "log.jsonl", self.total, step, validated, active=self.rank == 0
        )
        together(fabric, lambda: self.loggers.start(step, self.log.say))
        self.class_weights, self.images_of = balance(
            config, self.data, fabric, self.folder, self.log.say
        )
        self.record = StepRecord(fabric)
        self.known: Read | None = None

    @property
    def averaged(self) -> nn.Module:
        """The network that is validated and kept: the moving average where there is one."""
        return self.ema.module if self.ema else self.network

    def train(self) -> tuple[Path, Dataset | ImageSet]:
        """Run to the end, or raise `Stopped` with everything saved.

        Returns:
            The best weights' file, on rank 0, and the data that chose them.
        """
        train = self.config.train
        self.log.say(introduction(self))
        self.model.train()
        with self.stopping, self.log, closing(self._batches()) as batches:
            while True:
                step = self.state["step"]
                if self._due(step) and self.state["validated"] < step:
                    with self.log.validating():
                        scores, picture = validate(self)
                    self._save()
                    # after the save: a run that is killed before it validates once more
                    self.loggers.validation(step, scores, picture)
                if step >= self.total or 0 < train.patience <= self.state["since_best"]:
                    break
                with self.log.waiting():
                    batch = next(batches)
                rate = self._step(batch)
                step = self.state["step"] = step + 1
                # one process decides alone; several agree when they read the record
                stop = self.stopping.asked if self.world == 1 else 0
                saves = step % train.save_every == 0 or self._due(step)
                # the first step is read at once: a person sees that it runs
                if saves or stop or self.known is None or step % train.log_every == 0:
                    stop = self._read(rate) or stop
                epoch, left = step / self.per_epoch, self._validations_left()
                self.log.step(step, epoch, self.known, rate, train.batch, left)
                if saves or stop:
                    self._save()
                if stop:
                    raise Stopped(stop)
        self.log.say(f"waited for data {self.log.waiting_share:.1%} of the training time")
        return self.folder / "best.safetensors", self.val

    def _save(self) -> None:
        path = self.folder / "last.ckpt"
        self.loggers.save()
        from_main(self.fabric, lambda: save_checkpoint(path, checkpoint_of(self)))

    def _batches(self) -> Generator[Batch]:
        """The batches of this process from the next step on."""
        images, train = len(self.data.names), self.config.train
        drawn = self.config.data.rare, self.images_of
        order = StepBatches(
            images,
            train.batch,
            train.seed,
            self.state["step"],
            self.total,
            self.rank,
            self.world,
            *drawn,
        )
        mean = getattr(self.segmenter.encoder, "mean", None)
        fill = (
            IMAGENET_MEAN if mean is None else tuple(round(255 * float(v)) for v in mean.flatten())
        )
        return train_batches(
            self.data,
            self.task.make_transform(fill, self.bands),
            order,
            self.config.data.workers,
            pin=self.fabric.device.type == "cuda",
        )

    def _due(self, step: int) -> bool:
        """Is ``step`` the end of an epoch that is validated, or of the run?"""
        return step > 0 and (
            step % (self.per_epoch * self.config.train.val_every) == 0 or step == self.total
        )

    def _validations_left(self) -> int:
        every = self.per_epoch * self.config.train.val_every
        return -(-self.total // every) - self.state["validated"] // every

    def _step(self, batch: dict[str, Any]) -> float:
        """One step, without waiting for the device; returns the learning rate."""
        step, device = self.state["step"], self.fabric.device
        # dropout draws from the step, so there is no generator state to restore
        torch.manual_seed((self.config.train.seed * 1_000_003 + step) * 1009 + self.rank)
        moved = {
            k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v
            for k, v in batch.items()
        }
        try:
            loss = self._backward(moved)
        except torch.OutOfMemoryError as error:
            share, parts = self.config.train.batch // self.world, self.state["parts"]
            height, width = self.config.data.crop
            raise UserError(
                f"out of memory at step {step + 1} with {-(-share // parts)} images of {height} x "
                f"{width} at once ({first_line(error)}). --train.batch auto keeps the total batch "
                f"of {self.config.train.batch} and splits it; or --train.accumulate {2 * parts}, a "
                "smaller --data.crop, --train.precision bf16-mixed"
            ) from None
        norm = clip_gradients(self.fabric, self.optimizer, self.config.optim.clip)
        self.record.add(step + 1, loss, norm, self.stopping.asked > 0, batch["names"])
        rate = set_learning_rate(self.optimizer, step, self.total, self.config.optim)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update_parameters(self.network)
        return rate

    def _backward(self, batch: dict[str, Any]) -> Tensor:
        """The gradient of the total batch's loss, part by part; returns the loss, on the device."""
        if self.config.train.channels_last:
            batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
        side = side_weight(self.segmenter, self.config.loss, self.state["step"] / self.total)
        how = {"weight": self.class_weights, "world": self.world, "side": side}
        parts = split(batch, self.state["parts"])
        if len(parts) > 1:
            how["totals"] = self.task.totals(batch, self.class_weights, self.world)
        total = torch.zeros((), device=self.fabric.device)
        for i, part in enumerate(parts):
            with self.fabric.no_backward_sync(
                self.model, enabled=self.world > 1 and i + 1 < len(parts)
            ):
                loss = self.task.loss(forward(self.model, part), part, **how)
                self.fabric.backward(loss)
            total = total + loss.detach()
        return total

    def _read(self, rate: float) -> int:
        """Wait for the device and log the last steps' values.

        Returns:
            The signal after which to stop, or 0.

        Raises:
            UserError: a loss or a gradient is not finite.
        """
        stop = 0
        for read in self.record.read():
            self._demand_finite(read)
            self.known = read
            stop = (self.stopping.asked or signal.SIGTERM) if read.stop else stop
        step, loss, norm = self.state["step"], self.known.loss, self.known.norm
        if step % self.config.train.log_every == 0 or self._due(step):
            row = {"step": step, "epoch": step / self.per_epoch}
            values = {"loss": loss, "grad_norm": norm, "lr": rate}
            self.log.write(row | values)
            pace = {"images_per_second": self.config.train.batch * (self.log.pace or math.nan)}
            self.loggers.training(step, values | pace)
        return stop

    def _demand_finite(self, read: Read) -> None:
        values = {"loss": read.loss, "gradient": read.norm}
        bad = next((name for name, value in values.items() if not math.isfinite(value)), None)
        # with 16-mixed the scaler skips a step whose gradient is not finite, and lowers its scale
        if not bad or (bad == "gradient" and self.config.train.precision == "16-mixed"):
            return
        names = [name for part in gather(self.fabric, read.names) for name in part]
        raise UserError(
            f"the {bad} is {values[bad]} at step {read.step}, images {', '.join(names)}. Lower "
            "--optim.lr, clip the gradient with --optim.clip 1, or use --train.precision 32-true",
            everywhere=True,
        )


def split(batch: dict[str, Any], parts: int) -> list[Batch]:
    """The batch in ``parts`` parts of nearly the same number of images; fewer if it has fewer
    images."""
    images = len(batch["image"])
    ends = [images * i // min(parts, images) for i in range(min(parts, images) + 1)]
    return [
        Batch({k: v[start:stop] for k, v in batch.items()}) for start, stop in zip(ends, ends[1:])
    ]
