"""The host reads the device once in `train.log_every` steps, and decides on what it then knows."""

import dataclasses
import itertools
import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cfnseg.errors import UserError
from cfnseg.training import run as engine
from cfnseg.training.log import read_log
from tests.conftest import changed

aten = torch.ops.aten
# what makes a program wait for a GPU: values on the host, and shapes that depend on values
READS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.is_nonzero.default,
    aten.equal.default,
    aten._unique2.default,
    aten.bincount.default,
}


class HostReads(TorchDispatchMode):
    """Counts operations that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        masked = function is aten.index.Tensor and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if function in READS or masked:
            place = next(
                f for f in reversed(traceback.extract_stack()[:-1]) if "torch/" not in f.filename
            )
            self.found.append(f"{function} at {place.filename}:{place.lineno}")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "optim, loss, precision",
    [
        ({"name": "adamw", "clip": 1.0, "ema": 0.0}, {"class_weights": "median"}, "32-true"),
        ({"name": "sgd", "ema": 0.0}, {"ohem": 0.3}, "bf16-mixed"),
        ({"name": "adamw", "ema": 0.0}, {"label_smoothing": 0.1}, "32-true"),
    ],
)
def test_a_step_does_not_wait(tiny, monkeypatch, optim, loss, precision):
    """The operations' reference runs: only a CPU checks ids. No ema: its counter is on the host."""
    monkeypatch.setenv("CFNSEG_OPS", "reference")
    config = changed(
        changed(changed(tiny, "optim", **optim), "loss", **loss),
        "train",
        precision=precision,
        channels_last=True,
        max_steps=9,
        log_every=4,
        val_every=100,
        save_every=1000,
    )
    run = engine.Run(config)
    run.model.train()
    batches = list(itertools.islice(run._batches(), 3))
    with HostReads() as seen:
        for batch in batches:
            run._step(batch)
            run.state["step"] += 1
    assert seen.found == []
    assert run.record.reads == 0
    assert [read.step for read in run.record.read()] == [1, 2, 3]


@pytest.mark.parametrize(
    "log_every, reads, logged", [(1, 9, list(range(1, 10))), (4, 6, [4, 8, 9]), (100, 4, [9])]
)
def test_reads_of_a_run(tiny, log_every, reads, logged):
    """Nine steps: the record is read after the first, each ``log_every``, and before each save."""
    run = engine.Run(
        changed(tiny, "train", max_steps=9, log_every=log_every, val_every=100, save_every=3)
    )
    run.train()
    assert run.record.reads == reads
    assert [r["step"] for r in read_log(run.folder / "log.jsonl") if "loss" in r] == logged


def test_a_loss_that_is_not_finite_is_noticed_late_but_rightly(tiny):
    run = engine.Run(changed(tiny, "train", epochs=4, log_every=5, val_every=4, save_every=100))
    original, steps = run.task.loss, []

    def loss(*args, **how):
        steps.append(run.state["step"])
        return original(*args, **how) * (float("nan") if run.state["step"] == 6 else 1)

    run.task = dataclasses.replace(run.task, loss=loss)
    with pytest.raises(UserError, match="the loss is nan at step 7, images "):
        run.train()
    assert steps == list(range(10))  # read after steps 1, 5 and 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("optim", [{"name": "adamw", "clip": 1.0, "ema": 0.9}, {"name": "sgd"}])
def test_cuda_counts_no_synchronisation(tiny, optim):
    config = changed(
        changed(tiny, "optim", **optim),
        "train",
        accelerator="cuda",
        precision="bf16-mixed",
        log_every=100,
    )
    run = engine.Run(config)
    run.model.train()
    batches = run._batches()
    run._step(next(batches))  # compiles and allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            run._step(next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")
