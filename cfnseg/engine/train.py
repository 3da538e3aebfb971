"""The training loop.

A run is a function of its config: which images a step sees, how they are cut, the learning rate and the dropout masks all
follow from (seed, step). So `last.ckpt` holds weights, optimizer and average, and a resumed run ends in the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from cfnseg.config import Config, check, to_dict
from cfnseg.data.loader import Batch, StepBatches, steps_per_epoch, train_batches
from cfnseg.engine.checkpoint import Start, load_checkpoint, save_checkpoint, save_weights, start_from
from cfnseg.engine.classification import Classification, ImageEvaluation
from cfnseg.engine.evaluate import Evaluation
from cfnseg.engine.hardware import build_fabric, synchronise_batch_norm
from cfnseg.engine.log import RunLog, environment
from cfnseg.engine.loss import side_weight
from cfnseg.engine.optim import build_ema, build_optimizer, set_learning_rate
from cfnseg.engine.segmentation import Segmentation
from cfnseg.errors import UserError, first_line
from cfnseg.models.build import build_model
from cfnseg.models.trial import try_model
from cfnseg.storage import write_atomic


class Run:
    """One training run: its parts, and the loop over its steps.

    Args:
        config: every setting.
        resume: continue from the run folder's last.ckpt.

    Raises:
        UserError: settings, data or files that do not fit.
    """

    def __init__(self, config: Config, resume: bool = False) -> None:
        check(config)
        self.config, self.folder = config, Path(config.runs) / config.name
        self.fabric: Fabric = build_fabric(config.train)
        self.rank, self.world = self.fabric.global_rank, self.fabric.world_size
        train = config.train
        self.task = Classification(config) if config.model.level == "image" else Segmentation(config)
        if config.data.download:
            if self.rank == 0:
                self.task.open(download=True)
            self.fabric.barrier()
        self.data, self.val = self.task.open()
        self.labels = self.data.labels
        self.per_epoch = steps_per_epoch(len(self.data.names), train.batch)
        self.total = train.max_steps or train.epochs * self.per_epoch
        self.state: dict[str, Any] = {"step": 0, "validated": 0, "best": -1.0, "since_best": 0}
        self._build_model(fresh=not resume)
        if resume:
            self._restore()
        elif (self.folder / "last.ckpt").exists():
            raise UserError(f"{self.folder} holds a run already; continue it with --resume, give this one a --name, or delete it", code=2)
        self.fabric.barrier()
        if self.rank == 0:
            record = to_dict(config) | {"environment": environment()}
            write_atomic(self.folder / "config.json", lambda beside: beside.write_text(json.dumps(record, indent=1)))
        self.log = RunLog(self.folder / "log.jsonl", self.total, self.state["step"], self.state["validated"], self.rank == 0)
        self.task.prepare(self.data, self.fabric.device, self.log)
        self.stop_asked = False

    def _build_model(self, fresh: bool) -> None:
        train, fabric = self.config.train, self.fabric
        torch.manual_seed(train.seed)  # the same initial weights in every process
        network = build_model(self.config.model, len(self.labels), pretrained=fresh and not train.init)
        init = start_from(network, train.init, self.config.model, self.labels) if fresh and train.init else Start([], "")
        self.untouched, self.matched = init
        try_model(network, self.config.model, self.config.data.crop, train.batch)
        if train.channels_last:
            network = network.to(memory_format=torch.channels_last)
        self.parameters = network.parameter_table()
        if self.world > 1:
            network = synchronise_batch_norm(network, fabric.device)
        self.network: nn.Module = network.to(fabric.device)
        self.ema = build_ema(self.network, self.config.optim)
        optimizer = build_optimizer(self.network, self.config.optim)
        forward = torch.compile(self.network) if train.compile else self.network
        self.model, self.optimizer = fabric.setup(forward, optimizer)

    def _restore(self) -> None:
        path = self.folder / "last.ckpt"
        saved = load_checkpoint(path)
        try:
            now = json.loads(json.dumps(to_dict(self.config)))
            changed = [f"{s}.{k}" for s in ("model", "data", "optim", "loss", "train") for k in now[s]
                       if saved["config"][s].get(k) != now[s][k] and k not in FREE_TO_CHANGE]
            if saved["images"] != self._images():
                changed.append("the training images or classes")
            if changed:
                raise UserError(f"--resume: {', '.join(changed)} differs from the run in {self.folder}; a resumed run keeps its settings")
            self.network.load_state_dict(saved["model"])
            if self.ema:
                self.ema.load_state_dict(saved["ema"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.fabric.strategy.precision.load_state_dict(saved["precision"])
            self.state = saved["state"]
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise UserError(f"{path} is no checkpoint of this run ({type(error).__name__}: {first_line(error)})") from None

    def _images(self) -> str:
        """A fingerprint of the training images' names and the classes: both decide what a step sees."""
        return hashlib.sha256("\n".join([*self.data.names, "", *self.labels.names]).encode()).hexdigest()

    def _save(self) -> None:
        if self.rank == 0:
            save_checkpoint(self.folder / "last.ckpt", {
                "model": self.network.state_dict(), "ema": self.ema.state_dict() if self.ema else None,
                "optimizer": self.optimizer.state_dict(), "precision": self.fabric.strategy.precision.state_dict(),
                "state": self.state, "images": self._images(), "config": to_dict(self.config)})
        self.fabric.barrier()

    @property
    def averaged(self) -> nn.Module:
        """The network that is validated and kept: the moving average where there is one."""
        return self.ema.module if self.ema else self.network

    def train(self) -> None:
        """Run to the end, or raise KeyboardInterrupt with everything saved."""
        self._introduce()
        batches = self._batches()
        began, waited = time.perf_counter(), 0.0
        self.model.train()
        with _signals(self):
            while True:
                step = self.state["step"]
                if self._due(step) and self.state["validated"] < step:
                    self.log.paused()
                    began_validation = time.perf_counter()
                    self._validate()
                    began += time.perf_counter() - began_validation
                patience = self.config.train.patience
                if step >= self.total or (patience and self.state["since_best"] >= patience):
                    break
                before = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - before
                loss, rate, stop = self._step(batch)
                step = self.state["step"] = step + 1
                self.log.step(step, step / self.per_epoch, loss, rate, self.config.train.batch, waited / (time.perf_counter() - began))
                if step % 10 == 0 or self._due(step):
                    self.log.write({"step": step, "epoch": step / self.per_epoch, "loss": loss, "lr": rate})
                if step % self.config.train.save_every == 0 or self._due(step) or stop:
                    self._save()
                if stop:
                    raise KeyboardInterrupt
        self.waiting = waited / max(time.perf_counter() - began, 1e-9)

    def _introduce(self) -> None:
        table = "  ".join(f"{part} {count:,}" for part, count in self.parameters.items())
        self.log.say(f"{self.config.name}: {len(self.data.names)} training and {len(self.val.names)} validation images, "
                     f"{len(self.labels)} classes, {self.total} steps of {self.config.train.batch} on {self.world} x "
                     f"{self.fabric.device.type} {self.config.train.precision}\nparameters: {table}")
        if self.config.train.init and not self.state["step"]:
            self.log.say(f"starts from {self.config.train.init}" + (f"; new are {', '.join(self.untouched)}" if self.untouched else "")
                         + (f"; {self.matched}" if self.matched else ""))
        if self.state["step"]:
            self.log.say(f"resumed at step {self.state['step']} of {self.total}")

    def _batches(self):
        train = self.config.train
        order = StepBatches(len(self.data.names), train.batch, train.seed, self.state["step"], self.total, self.rank, self.world)
        transform = self.task.transform(self.network.encoder)
        return train_batches(self.data, transform, order, self.config.data.workers, pin=self.fabric.device.type == "cuda")

    def _due(self, step: int) -> bool:
        """Is ``step`` the end of an epoch that is validated, or of the run?"""
        return step > 0 and (step % (self.per_epoch * self.config.train.val_every) == 0 or step == self.total)

    def _step(self, batch) -> tuple[float, float, bool]:
        """One step; returns the batch's loss, the learning rate, and whether any process was asked to stop."""
        step, device = self.state["step"], self.fabric.device
        # dropout draws from the step, so there is no generator state to restore
        torch.manual_seed((self.config.train.seed * 1_000_003 + step) * 1009 + self.rank)
        there = {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        if self.config.train.channels_last:
            there["image"] = there["image"].contiguous(memory_format=torch.channels_last)
        side = side_weight(self.network, self.config.loss, step / self.total)
        loss = self.task.loss(self.model, Batch(there), self.world, side)
        # one message for both: processes must agree on the step after which they stop
        shared = torch.stack([loss.detach().float(), torch.tensor(float(self.stop_asked), device=device)])
        value, stop = self.fabric.all_reduce(shared, reduce_op="mean").tolist()
        self._demand_finite(value, "loss", batch)
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(self.model, self.optimizer, max_norm=self.config.optim.clip or math.inf,
                                          error_if_nonfinite=False)
        if self.config.train.precision != "16-mixed":  # there the scaler skips such a step and lowers its scale
            self._demand_finite(float(norm), "gradient", batch)
        rate = set_learning_rate(self.optimizer, step, self.total, self.config.optim)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update_parameters(self.network)
        return value, rate, stop > 0

    def _demand_finite(self, value: float, what: str, batch) -> None:
        if not math.isfinite(value):
            raise UserError(f"the {what} is {value} at step {self.state['step'] + 1}, images {', '.join(batch['names'])}. Lower "
                            "--optim.lr, clip the gradient with --optim.clip 1, or use --train.precision 32-true")

    def _validate(self) -> None:
        step, config = self.state["step"], self.config
        result = self.task.evaluate(self.averaged, self.val, device=self.fabric.device, rank=self.rank, world=self.world,
                                    precision=self.fabric.autocast)
        better = result.headline > self.state["best"]
        self.state |= {"validated": step, "since_best": 0 if better else self.state["since_best"] + 1}
        if better:
            self.state["best"] = result.headline
        if self.rank == 0:
            if better:
                save_weights(self.folder / "best.safetensors", self.averaged, config.model, self.labels, self._score(result))
            self.task.draw(self.averaged, self.val, self.folder / "pictures" / f"step_{step:06d}.jpg", self.fabric.device)
        self.log.write({"step": step, "epoch": step / self.per_epoch, **result.log_row()})
        self.log.say(f"epoch {step / self.per_epoch:.0f}  {result.line()}" + ("  best" if better else ""))
        self._save()

    def _score(self, result: Evaluation | ImageEvaluation) -> dict[str, Any]:
        data = self.config.data
        held = f"{data.holdout} images" if self.config.model.level == "image" else f"{data.holdout}*"
        split = f"{data.train_split}, held out {held}" if data.holdout else data.val_split
        crop = {"crop": list(data.crop), "held_out": int(data.holdout or 0)} if self.config.model.level == "image" else {}
        return {"data": data.name, "split": split, "images": len(result.names), **result.score(), **crop, "step": self.state["step"],
                "steps": self.total, "seed": self.config.train.seed}


# what may differ between a run and its continuation: none of it changes a weight
FREE_TO_CHANGE = {"workers", "download", "save_every", "val_every", "pictures", "patience", "root", "compile"}


class _signals:
    """Ctrl-C and SIGTERM finish the step (or validation) that is under way and save; a second one stops at once."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __enter__(self) -> None:
        def ask(*_: object) -> None:
            if self.run.stop_asked:
                raise KeyboardInterrupt
            self.run.stop_asked = True

        self.old = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)
        self.run.log.close()
