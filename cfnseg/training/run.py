"""The training loop.

A run is a function of its config: images and crops of a step, learning rate and dropout masks
follow from (seed, step). So `last.ckpt` holds weights, optimizer and average, and a resumed run
ends in the same bits.

A step does not wait for the device. The host reads loss and gradient norm every `train.log_every`
steps and before it saves, so no checkpoint holds weights that are not finite.
"""

from __future__ import annotations

import functools
import json
import math
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from cfnseg.config import Config, check, to_dict
from cfnseg.data.dataset import Dataset
from cfnseg.data.formats.class_folders import ImageSet
from cfnseg.data.loader import StepBatches, steps_per_epoch, train_batches
from cfnseg.errors import UserError, first_line
from cfnseg.evaluation.classification import ImageEvaluation
from cfnseg.evaluation.segmentation import Evaluation
from cfnseg.models.build import build_model
from cfnseg.models.segmenter import as_segmenter
from cfnseg.models.trial import rehearsal, try_model, try_own_model, unused_parameters
from cfnseg.models.weights import OWN, Start, save_weights, start_from
from cfnseg.storage import write_atomic
from cfnseg.training.accumulate import fewest_parts, random_batch, split
from cfnseg.training.checkpoint import changed_settings, fingerprint, previous, save_checkpoint
from cfnseg.training.hardware import build_fabric, synchronise_batch_norm
from cfnseg.training.hosts import from_main, gather, same_everywhere, together
from cfnseg.training.log import RunLog, environment
from cfnseg.training.loss import side_weight
from cfnseg.training.optim import build_ema, build_optimizer, clip_gradients, set_learning_rate
from cfnseg.training.record import Read, StepRecord
from cfnseg.training.stopping import Stopped, Stopping
from cfnseg.training.tasks import class_weights, classification, forward, segmentation, with_loss

IMAGENET_MEAN = (124, 116, 104)  # colour of padding where an encoder has no mean of its own


class Trained(NamedTuple):
    """What a finished run hands over.

    Attributes:
        weights: the best weights' file, on rank 0.
        validation: the data that chose them.
    """

    weights: Path
    validation: Dataset | ImageSet


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
    ) -> None:
        check(config)
        train = config.train
        if model is not None:
            config = replace(config, model=replace(config.model, name=OWN))
            if train.init:
                raise UserError(
                    "train.init is for models of cfnseg; load weights into your own before", code=2
                )
        self.config, self.folder = config, Path(config.runs) / config.name
        self.fabric = fabric or build_fabric(train)
        self.rank, self.world = self.fabric.global_rank, self.fabric.world_size
        task = (classification if config.model.level == "image" else segmentation)(config)
        self.task = with_loss(task, loss) if loss else task
        saved = from_main(self.fabric, lambda: previous(self.folder, resume))
        self._open_data(data)
        self.per_epoch = together(
            self.fabric, lambda: steps_per_epoch(len(self.data.names), train.batch)
        )
        self.total = train.max_steps or train.epochs * self.per_epoch
        self.state: dict[str, Any] = {
            "step": 0,
            "validated": 0,
            "best": -1.0,
            "since_best": 0,
            "parts": train.accumulate,
        }
        network = together(self.fabric, lambda: self._build_model(model, fresh=not resume))
        if not train.accumulate:
            began = saved["state"].get("parts") if saved else 0
            self.state["parts"] = began or self._fewest_parts(network)
        together(self.fabric, lambda: self._try_model(network))
        self._set_up(network)
        self.extended = (
            together(self.fabric, functools.partial(self._restore, saved)) if saved else 0
        )
        del saved
        from_main(self.fabric, self._write_config)
        self.log = RunLog(
            self.folder / "log.jsonl",
            self.total,
            self.state["step"],
            self.state["validated"],
            self.rank == 0,
        )
        self.class_weights = class_weights(
            config, self.data, self.fabric, self.folder, self.log.say
        )
        self.record = StepRecord(self.fabric, train.log_every)
        self.known: Read | None = None
        self.stopping = stopping or Stopping()

    def _open_data(self, own: tuple[Dataset, Dataset] | None) -> None:
        """Rank 0 downloads what is missing; then every host that does not share its folder does."""
        data = self.config.data
        if data.download and not own:
            from_main(self.fabric, lambda: self.task.open_data(True) and None)
            if self.world > 1:
                together(self.fabric, lambda: self.fabric.local_rank or self.task.open_data(True))
        self.data, self.val = own or together(self.fabric, self.task.open_data)
        self.labels = self.data.labels
        self.split = data.val_split
        if data.holdout and not own:
            held = (
                f"{data.holdout} images"
                if self.config.model.level == "image"
                else f"{data.holdout}*"
            )
            self.split = f"{data.train_split}, held out {held}"
        if self.val.labels.to_dict() != self.labels.to_dict():
            raise UserError(
                "training and validation data have different classes", code=2, everywhere=True
            )
        same_everywhere(self.fabric, fingerprint(self.data), "the training images or classes")
        same_everywhere(self.fabric, "\n".join(self.val.names), "the validation images")

    def _build_model(self, own: nn.Module | None, fresh: bool) -> nn.Module:
        """The network on its device, with its start weights."""
        train, settings = self.config.train, self.config.model
        torch.manual_seed(train.seed)  # the same initial weights in every process
        network = (
            own
            if own is not None
            else build_model(settings, len(self.labels), fresh and not train.init)
        )
        starts = fresh and train.init
        self.start = (
            start_from(network, train.init, settings, self.labels) if starts else Start([], "")
        )
        if self.world > 1:
            frozen = set(unused_parameters(network))  # so that a step need not search for them
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name not in frozen)
        memory = torch.channels_last if train.channels_last else torch.preserve_format
        return network.to(self.fabric.device, memory_format=memory)

    def _fewest_parts(self, network: nn.Module) -> int:
        """`train.accumulate` found by trial, the same in every process."""
        side = side_weight(as_segmenter(network), self.config.loss, 0.0)

        def attempt(images: int) -> None:
            with rehearsal(network) as trial, self.fabric.autocast():
                room = [
                    torch.empty_like(p) for p in network.parameters() for _ in range(2)
                ]  # the optimizer's state
                batch = random_batch(self.config, images, len(self.labels), self.fabric.device)
                self.task.loss(forward(trial, batch), batch, side=side).backward()
                del room

        found = together(
            self.fabric, lambda: fewest_parts(attempt, self.config.train.batch // self.world)
        )
        return max(gather(self.fabric, found))

    def _try_model(self, network: nn.Module) -> None:
        """One forward pass: what cannot train says so now."""
        if self.config.model.name == OWN:
            try_own_model(network, len(self.labels), self.config.data.crop)
            return
        # batch norms count over the processes, and see a part of the batch at a time
        smallest = self.config.train.batch // self.world // max(1, self.state["parts"]) * self.world
        try_model(network, self.config.model, self.config.data.crop, max(1, smallest))

    def _set_up(self, network: nn.Module) -> None:
        """Average, optimizer, and what Fabric wraps."""
        self.network = (
            synchronise_batch_norm(network, self.fabric.device) if self.world > 1 else network
        )
        self.segmenter = as_segmenter(self.network)
        self.ema = build_ema(self.network, self.config.optim)
        optimizer = build_optimizer(self.network, self.config.optim)
        wrapped = torch.compile(self.network) if self.config.train.compile else self.network
        self.model, self.optimizer = self.fabric.setup(wrapped, optimizer)

    def _restore(self, saved: dict[str, Any]) -> int:
        """Continue from a checkpoint; returns by how many steps the run is longer now."""
        try:
            changed, before = changed_settings(saved["config"], self.config)
            if saved["images"] != fingerprint(self.data):
                changed.append("the training images or classes")
            theirs, ours = (
                {k: v.shape for k, v in state.items()}
                for state in (saved["model"], self.network.state_dict())
            )
            if self.config.model.name == OWN and theirs != ours and not changed:
                changed.append("the model's parameters")
            if changed:
                raise UserError(
                    f"--resume: {', '.join(changed)} differs from the run in {self.folder}; "
                    "a resumed run keeps its settings"
                )
            self.network.load_state_dict(saved["model"])
            if self.ema:
                self.ema.load_state_dict(saved["ema"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.fabric.strategy.precision.load_state_dict(saved["precision"])
            self.state |= saved["state"]
            length = before["max_steps"] or before["epochs"] * self.per_epoch
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{self.folder / 'last.ckpt'} is no checkpoint of this run "
                f"({type(error).__name__}: {first_line(error)})"
            ) from None
        if self.total < self.state["step"]:
            raise UserError(
                f"--resume: the run in {self.folder} has done {self.state['step']} steps; {self.total} are fewer. "
                "Give --train.epochs or --train.max-steps at least as many",
                code=2,
            )
        return self.total - length

    def _write_config(self) -> None:
        text = json.dumps(to_dict(self.config) | {"environment": environment()}, indent=1)
        write_atomic(self.folder / "config.json", lambda temporary: temporary.write_text(text))

    def _save(self) -> None:
        from_main(
            self.fabric,
            lambda: save_checkpoint(
                self.folder / "last.ckpt",
                {
                    "model": self.network.state_dict(),
                    "ema": self.ema.state_dict() if self.ema else None,
                    "optimizer": self.optimizer.state_dict(),
                    "precision": self.fabric.strategy.precision.state_dict(),
                    "state": self.state,
                    "images": fingerprint(self.data),
                    "config": to_dict(self.config),
                },
            ),
        )

    @property
    def averaged(self) -> nn.Module:
        """The network that is validated and kept: the moving average where there is one."""
        return self.ema.module if self.ema else self.network

    def train(self) -> Trained:
        """Run to the end, or raise `Stopped` with everything saved."""
        train = self.config.train
        self._introduce()
        began, waited = time.perf_counter(), 0.0
        self.model.train()
        with self.stopping, self.log, closing(self._batches()) as batches:
            while True:
                step = self.state["step"]
                if self._due(step) and self.state["validated"] < step:
                    validation = time.perf_counter()
                    with self.log.validating():
                        self._validate()
                    began += time.perf_counter() - validation
                if step >= self.total or (
                    train.patience and self.state["since_best"] >= train.patience
                ):
                    break
                before = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - before
                rate = self._step(batch)
                step = self.state["step"] = step + 1
                # one process decides alone; several agree when they read the record
                stop = self.stopping.asked if self.world == 1 else 0
                saves = step % train.save_every == 0 or self._due(step)
                # the first step is read at once: a person sees that it runs
                if (
                    saves
                    or stop
                    or self.known is None
                    or step % train.log_every == 0
                    or self.record.full
                ):
                    stop = self._read(rate) or stop
                self.log.step(
                    step,
                    step / self.per_epoch,
                    self.known,
                    rate,
                    train.batch,
                    waited / (time.perf_counter() - began),
                    self._validations_left(),
                )
                if saves or stop:
                    self._save()
                if stop:
                    raise Stopped(stop)
        self.log.say(
            f"waited for data {waited / max(time.perf_counter() - began, 1e-9):.1%} of the training time"
        )
        return Trained(self.folder / "best.safetensors", self.val)

    def _introduce(self) -> None:
        config, parts, step = self.config, self.state["parts"], self.state["step"]
        table = "  ".join(
            f"{part} {count:,}" for part, count in self.segmenter.parameter_table().items()
        )
        batch = f"{config.train.batch}" + (f" in {parts} parts" if parts > 1 else "")
        self.log.say(
            f"{config.name}: {len(self.data.names)} training and {len(self.val.names)} validation images, "
            f"{len(self.labels)} classes, {self.total} steps of {batch} on {self.world} x "
            f"{self.fabric.device.type} {config.train.precision}\nparameters: {table}"
        )
        if config.train.init and not step:
            new = self.start.untouched
            notes = [
                config.train.init,
                *[f"new are {len(new)} tensors, first {', '.join(new[:3])}"] * bool(new),
                self.start.classes,
            ]
            self.log.say(f"starts from {'; '.join(filter(None, notes))}")
        if step:
            self.log.say(f"resumed at step {step} of {self.total}")
        if self.extended:
            self.log.say(
                f"{self.total} steps in place of {self.total - self.extended}: the learning rate goes on "
                f"as in a run of {self.total} steps"
            )

    def _batches(self):
        train = self.config.train
        order = StepBatches(
            len(self.data.names),
            train.batch,
            train.seed,
            self.state["step"],
            self.total,
            self.rank,
            self.world,
        )
        mean = getattr(self.segmenter.encoder, "mean", None)
        fill = (
            IMAGENET_MEAN if mean is None else tuple(round(255 * float(v)) for v in mean.flatten())
        )
        return train_batches(
            self.data,
            self.task.make_transform(fill),
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
                f"out of memory at step {step + 1} with {-(-share // parts)} images of {height} x {width} at once "
                f"({first_line(error)}). --train.batch auto keeps the total batch of {self.config.train.batch} and splits "
                f"it; or --train.accumulate {2 * parts}, a smaller --data.crop, --train.precision bf16-mixed"
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
        """Wait for the device: the last steps' values; returns the signal after which to stop, or
        0.

        Raises:
            UserError: a loss or a gradient is not finite.
        """
        stop = 0
        for read in self.record.read():
            self._demand_finite(read)
            self.known = read
            stop = (self.stopping.asked or signal.SIGTERM) if read.stop else stop
        step = self.state["step"]
        if step % self.config.train.log_every == 0 or self._due(step):
            self.log.write(
                {
                    "step": step,
                    "epoch": step / self.per_epoch,
                    "loss": self.known.loss,
                    "grad_norm": self.known.norm,
                    "lr": rate,
                }
            )
        return stop

    def _demand_finite(self, read: Read) -> None:
        # with 16-mixed the scaler skips a step whose gradient is not finite, and lowers its scale
        bad = (
            "loss"
            if not math.isfinite(read.loss)
            else "gradient"
            if not math.isfinite(read.norm)
            else ""
        )
        if not bad or (bad == "gradient" and self.config.train.precision == "16-mixed"):
            return
        names = [name for part in gather(self.fabric, read.names) for name in part]
        value = read.loss if bad == "loss" else read.norm
        raise UserError(
            f"the {bad} is {value} at step {read.step}, images {', '.join(names)}. Lower --optim.lr, clip the "
            "gradient with --optim.clip 1, or use --train.precision 32-true",
            everywhere=True,
        )

    def _validate(self) -> None:
        """Score the average; keep it if it is the best so far."""
        step, config = self.state["step"], self.config
        try:
            result = self.task.evaluate(
                self.averaged,
                self.val,
                device=self.fabric.device,
                rank=self.rank,
                world=self.world,
                precision=self.fabric.autocast,
                stopping=self.stopping,
                title="" if self.rank else "validate",
            )
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"out of memory in validation after step {step} ({first_line(error)}); the training is saved. "
                "Lower --model.test-scale in a new run, or use a GPU with more memory"
            ) from None
        better = result.headline > self.state["best"]
        self.state |= {
            "validated": step,
            "since_best": 0 if better else self.state["since_best"] + 1,
        }
        if better:
            self.state["best"] = result.headline

        def keep() -> None:
            if better:
                save_weights(
                    self.folder / "best.safetensors",
                    self.averaged,
                    config.model,
                    self.labels,
                    self._score(result),
                )
            if self.task.draw:
                self.task.draw(
                    self.averaged, self.val, self.folder / "pictures" / f"step_{step:06d}.jpg"
                )

        from_main(self.fabric, keep)
        self.log.write({"step": step, "epoch": step / self.per_epoch, **result.log_row()})
        self.log.say(
            f"epoch {step / self.per_epoch:.0f}  {result.line()}" + ("  best" if better else "")
        )
        self._save()

    def _score(self, result: Evaluation | ImageEvaluation) -> dict[str, Any]:
        """The score that a weights file keeps."""
        data = self.config.data
        score = {
            "data": data.name,
            "split": self.split,
            "images": len(result.names),
            **result.score(),
        }
        if self.config.model.level == "image":
            score |= {"crop": list(data.crop), "held_out": int(data.holdout or 0)}
        return score | {
            "step": self.state["step"],
            "steps": self.total,
            "seed": self.config.train.seed,
        }
