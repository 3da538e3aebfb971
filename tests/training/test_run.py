"""The loop: it learns, records, refuses, and stops where it must."""

import dataclasses
import json
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from cfnseg import workflows
from cfnseg.config import Loss
from cfnseg.config_values import to_dict
from cfnseg.data.dataset import read_truth
from cfnseg.errors import UserError
from cfnseg.export.origin import find_origin
from cfnseg.models.build import build_model
from cfnseg.models.segmenter import Output
from cfnseg.models.weights import load
from cfnseg.training import run as engine
from cfnseg.training.checkpoint import load_checkpoint
from cfnseg.training.log import read_log
from cfnseg.training.loss import batch_loss, classes_present, pixel_loss
from cfnseg.training.optim import build_optimizer, schedule
from tests.conftest import changed, run_tool


def test_a_run_learns_and_leaves_what_the_design_promises(tiny):
    folder = workflows.train(changed(tiny, "train", epochs=12))
    rows = read_log(folder / "log.jsonl")
    losses = [r["val_loss"] for r in rows if "val_loss" in r]
    assert losses[-1] < 0.9 * losses[0]
    assert [r["step"] for r in rows if "val_miou" in r] == [3 * e for e in range(1, 13)]
    record = json.loads((folder / "config.json").read_text())
    assert record["optim"]["lr"] == 3e-3
    assert record["environment"]["torch"] == torch.__version__
    best = load(folder / "best.safetensors")
    assert best.score["miou"] == pytest.approx(
        max(r["val_miou"] for r in rows if "val_miou" in r), abs=1e-5
    )
    report = json.loads((folder / "report" / "report.json").read_text())
    assert report["miou"] == pytest.approx(best.score["miou"], abs=1e-4)
    assert report["num_images"] == 5
    assert (folder / "report" / "report.html").exists()
    assert len(list((folder / "pictures").glob("*.jpg"))) == 12


def test_a_run_folder_is_not_overwritten(tiny):
    engine.Run(changed(tiny, "train", max_steps=1)).train()
    with pytest.raises(UserError, match="holds a run already"):
        engine.Run(tiny)


def test_resume_refuses_other_settings(tiny):
    engine.Run(changed(tiny, "train", max_steps=2)).train()
    with pytest.raises(UserError, match=r"optim\.lr differs"):
        engine.Run(changed(changed(tiny, "train", max_steps=2), "optim", lr=1.0), resume=True)
    with pytest.raises(UserError, match="no checkpoint .* start without --resume"):
        engine.Run(dataclasses.replace(tiny, name="other"), resume=True)


def test_resume_refuses_other_images_and_foreign_files(tiny, folder_data, tmp_path):
    engine.Run(changed(tiny, "train", max_steps=2)).train()
    other = tmp_path / "other"
    shutil.copytree(folder_data, other)
    (other / "images" / "train" / "s00.png").rename(other / "images" / "train" / "t00.png")
    (other / "labels" / "train" / "s00.png").rename(other / "labels" / "train" / "t00.png")
    with pytest.raises(UserError, match="the training images or classes differs"):
        engine.Run(
            changed(changed(tiny, "train", max_steps=2), "data", root=str(other)), resume=True
        )
    torch.save({"x": 1}, f"{tiny.runs}/tiny/last.ckpt")
    with pytest.raises(UserError, match="no checkpoint of this run"):
        engine.Run(changed(tiny, "train", max_steps=2), resume=True)


def test_a_score_of_images_that_were_trained_on_says_so(tiny, tmp_path, capsys):
    run = engine.Run(changed(changed(tiny, "train", max_steps=2), "data", train_split="train+val"))
    best, data = run.train()
    seen = f"val, {len(data.names)} of {len(data.names)} images trained on"
    assert load(best).score["split"] == seen
    assert seen in capsys.readouterr().out
    where = {"root": tiny.data.root, "workers": 0, "device": "cpu", "pictures": False}
    report = workflows.score_weights(
        best, "folder", split="val", out=best.with_name("best_val"), **where
    )
    assert report["facts"]["split"] == seen
    assert f"{seen}; the score says nothing of other images" in capsys.readouterr().out
    for name in ("report.md", "report.html"):
        assert (
            "The weights were trained on these images"
            in best.with_name("best_val").joinpath(name).read_text()
        )
    report = workflows.score_weights(best, "folder", split="train", out=tmp_path / "t", **where)
    assert report["facts"]["split"] == "train"
    # a model card has no such score
    origin = find_origin(best, load(best))
    assert not origin.scored
    assert "best_val/report.json was left out: best.safetensors was trained on" in origin.notes[0]


def test_a_resumed_log_has_no_row_twice(tiny):
    config = changed(tiny, "train", max_steps=3)
    engine.Run(config).train()
    path = f"{tiny.runs}/tiny/last.ckpt"
    state = load_checkpoint(path)
    state["state"]["validated"] = 0  # killed after the validation's row, before the save behind it
    torch.save(state, path)
    engine.Run(config, resume=True).train()
    assert [r["step"] for r in read_log(f"{tiny.runs}/tiny/log.jsonl") if "val_miou" in r] == [3]


@pytest.mark.parametrize(
    "section, fields",
    [
        ("train", {"batch": 0}),
        ("train", {"epochs": 0}),
        ("train", {"save_every": 0}),
        ("data", {"crop": (16, 64)}),
        ("train", {"seed": -1}),
        ("data", {"scale": (2.0, 0.5)}),
        ("model", {"grid": (0, 4)}),
        ("loss", {"ohem": 2.0}),
        ("data", {"photometric": 2.0}),
    ],
)
def test_values_that_no_run_can_use(tiny, section, fields):
    with pytest.raises(UserError, match=f"{section}.{next(iter(fields))} is .*; expected"):
        engine.Run(changed(tiny, section, **fields))


@pytest.mark.parametrize("log_every", [1, 4])
def test_no_checkpoint_is_written_from_a_gradient_that_is_not_finite(tiny, log_every):
    """Found at most ``log_every`` steps later; the message names the bad step and its images."""
    config = changed(tiny, "train", epochs=4, save_every=3, val_every=4, log_every=log_every)
    run = engine.Run(config)
    asked = []

    def spoil(gradient):
        asked.append(run.state["step"])
        return gradient * (float("inf") if run.state["step"] == 4 else 1)

    run.network.pixel.predictors[0][-1].weight.register_hook(spoil)
    with pytest.raises(UserError, match=r"gradient is (nan|inf) at step 5, images s\d\d"):
        run.train()
    assert max(asked) <= 4 + log_every
    kept = load_checkpoint(f"{tiny.runs}/tiny/last.ckpt")
    assert kept["state"]["step"] == 3
    assert all(torch.isfinite(v).all() for v in kept["model"].values() if v.is_floating_point())


def test_fine_tuning_starts_from_what_fits(tiny):
    engine.Run(changed(tiny, "train", max_steps=1)).train()
    path = f"{tiny.runs}/tiny/best.safetensors"
    before = load(path).model.state_dict()
    run = engine.Run(
        dataclasses.replace(changed(tiny, "train", max_steps=1, init=path), name="same")
    )
    assert run.start.untouched == []
    assert all(torch.equal(v, before[k]) for k, v in run.network.state_dict().items())
    other = changed(changed(tiny, "train", max_steps=1, init=path), "model", grid=(4, 5))
    run = engine.Run(dataclasses.replace(other, name="other"))
    assert run.start.untouched == ["pixel.fusion.delta", "pixel.fusion.bias"]
    with pytest.raises(UserError, match="no weights file"):
        engine.Run(
            dataclasses.replace(changed(tiny, "train", init="nowhere.safetensors"), name="third")
        )


def test_early_stopping(tiny, monkeypatch):
    run = engine.Run(changed(tiny, "train", epochs=9, patience=2))
    run.state["best"] = 2.0  # never to be beaten
    run.train()
    assert run.state["step"] == 2 * run.per_epoch


def test_a_loss_that_is_not_finite_names_step_and_images(tiny):
    run = engine.Run(tiny)
    with torch.no_grad():
        run.network.pixel.predictors[0][-1].weight.fill_(float("nan"))
    with pytest.raises(
        UserError, match=r"loss is nan at step 1, images s\d\d, s\d\d.*Lower --optim\.lr"
    ):
        run.train()


@pytest.mark.parametrize(
    "section, fields",
    [
        ("optim", {"name": "sgd", "lr": 0.05, "clip": 1.0, "ema": 0.0}),
        ("loss", {"class_weights": "median", "class_weight_power": 0.5}),
        ("loss", {"ohem": 0.3, "label_smoothing": 0.1}),
        ("loss", {"image": 0.0}),
        ("train", {"precision": "bf16-mixed"}),
        ("train", {"channels_last": True}),
        ("model", {"fusion": "conv", "fusion_norm": "channel"}),
        ("model", {"strides": (32,)}),
    ],
)
def test_settings_change_the_result(tiny, section, fields):
    """No option does nothing: each run differs from the plain one, and ends with finite weights."""
    finals = []
    for name, config in (("plain", tiny), ("changed", changed(tiny, section, **fields))):
        run = engine.Run(dataclasses.replace(changed(config, "train", max_steps=2), name=name))
        run.train()
        finals.append(torch.cat([p.detach().flatten() for p in run.averaged.parameters()]))
    assert torch.isfinite(finals[1]).all()
    assert finals[0].shape != finals[1].shape or not torch.equal(*finals)


def test_parameter_groups(tiny):
    model = build_model(tiny.model, 8)
    optimizer = build_optimizer(
        model, dataclasses.replace(tiny.optim, encoder_lr=0.5, fusion_lr=0.1)
    )
    by_id = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    assert len(by_id) == sum(1 for _ in model.parameters())
    group = {n: by_id[id(p)] for n, p in model.named_parameters()}
    assert (group["pixel.fusion.delta"]["factor"], group["pixel.fusion.delta"]["weight_decay"]) == (
        0.1,
        0.01,
    )
    assert (group["image.fusion.bias"]["factor"], group["image.fusion.bias"]["weight_decay"]) == (
        0.1,
        0.0,
    )
    assert group["encoder.body.conv_stem.weight"]["factor"] == 0.5
    assert group["pixel.fusion.norm.weight"]["weight_decay"] == 0.0
    assert group["pixel.predictors.0.1.weight"]["factor"] == 1.0


def test_schedule_warms_up_and_ends_at_zero(tiny):
    optim = dataclasses.replace(tiny.optim, warmup=0.1, power=1.0)
    rates = [schedule(s, 100, optim) for s in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(0.91)
    assert rates[100] == 0


def test_image_loss_targets_and_pixel_loss_by_hand():
    mask = (
        torch.tensor([[[0, 2], [255, 2]]], dtype=torch.uint8)
        .repeat_interleave(8, 1)
        .repeat_interleave(8, 2)
    )
    assert classes_present(mask, 4).tolist() == [[1.0, 0.0, 1.0, 0.0]]
    logits = torch.randn(1, 4, 16, 16)
    kept = mask != 255
    log = logits.log_softmax(1).gather(1, torch.where(kept, mask, 0).long()[:, None])[:, 0]
    assert pixel_loss(logits, mask, Loss(), None).item() == pytest.approx(
        -log[kept].mean().item(), rel=1e-5
    )
    hardest = (-log[kept]).topk(int(0.25 * kept.sum())).values.mean()
    assert pixel_loss(logits, mask, Loss(ohem=0.25), None).item() == pytest.approx(
        hardest.item(), rel=1e-5
    )
    labelled = torch.where(kept, mask, 1)
    plain = pixel_loss(logits, labelled, Loss(), None)
    both = batch_loss(Output(logits, torch.zeros(1, 4)), labelled, Loss(image=2.0), None)
    assert both.item() == pytest.approx(plain.item() + 2 * np.log(2), rel=1e-5)
    nothing = torch.full_like(mask, 255)
    assert pixel_loss(logits, nothing, Loss(), None).item() == 0
    assert pixel_loss(logits, nothing, Loss(ohem=0.5), None).item() == 0


@pytest.mark.slow
def test_compiled_training_is_the_same_training(tiny):
    """A minute on a CPU: pytest -m slow.

    No dropout: a compiled step draws other masks. SGD: Adam turns a rounding in a tiny gradient
    into a whole step.
    """
    tiny = changed(changed(tiny, "model", dropout=0.0), "optim", name="sgd", lr=0.01)
    finals = []
    for name, compiled in (("plain", False), ("compiled", True)):
        run = engine.Run(
            dataclasses.replace(changed(tiny, "train", max_steps=2, compile=compiled), name=name)
        )
        run.train()
        finals.append({k: v.float() for k, v in run.network.state_dict().items()})
    for key, value in finals[0].items():
        torch.testing.assert_close(finals[1][key], value, rtol=1e-3, atol=1e-3)


def test_a_finished_run_is_extended(tiny, capsys):
    """Finished steps stay as they are; the schedule of the others is the longer run's."""
    folder = workflows.train(tiny)
    first = load_checkpoint(folder / "last.ckpt")
    assert first["state"]["step"] == 6
    longer = changed(tiny, "train", epochs=3)
    assert workflows.train(longer, resume=True) == folder
    assert "9 steps in place of 6" in capsys.readouterr().out
    rows = read_log(folder / "log.jsonl")
    assert [r["step"] for r in rows if "val_miou" in r] == [3, 6, 9]
    rate = {r["step"]: r["lr"] for r in rows if "lr" in r}
    assert rate[9] == pytest.approx(3e-3 * schedule(8, 9, tiny.optim))
    assert load_checkpoint(folder / "last.ckpt")["state"]["step"] == 9
    with pytest.raises(UserError, match=r"has done 9 steps; 3 are fewer\. Give --train\.epochs"):
        engine.Run(changed(tiny, "train", epochs=1), resume=True)


def test_a_checkpoint_of_an_edition_without_some_settings(tiny):
    """Missing settings had their defaults; another value is refused as any change is."""
    engine.Run(changed(tiny, "train", max_steps=2)).train()
    path = f"{tiny.runs}/tiny/last.ckpt"
    saved = load_checkpoint(path)
    for name in ("accumulate", "tf32", "cudnn_benchmark", "log_every"):
        del saved["config"]["train"][name]
    del saved["state"]["parts"]
    torch.save(saved, path)
    with pytest.raises(UserError, match=r"train\.accumulate differs"):
        engine.Run(changed(tiny, "train", max_steps=3, accumulate=2), resume=True)
    run = engine.Run(changed(tiny, "train", max_steps=3), resume=True)
    run.train()
    assert run.state["step"] == 3


def test_training_in_a_thread(tiny):
    """A web application or a sweep's agent: no signal handler can be set there."""
    found = []
    thread = threading.Thread(
        target=lambda: found.append(workflows.train(changed(tiny, "train", max_steps=2)))
    )
    thread.start()
    thread.join()
    assert (found[0] / "report" / "report.html").exists()


SECOND = """
import sys
from cfnseg.config import Config
from cfnseg.config_values import from_dict
from cfnseg.data.dataset import read_truth
from cfnseg.errors import UserError
from cfnseg.export.origin import find_origin
from cfnseg.workflows import train

try:
    train(from_dict(Config, eval(sys.argv[1])))
except UserError as error:
    print(error)
"""


def test_two_runs_under_one_name(tiny, tmp_path):
    """The second is refused while the first is at it, and may go on afterwards."""
    inside, go_on = threading.Event(), threading.Event()
    config = changed(tiny, "train", max_steps=1)

    def hold(original=workflows.write_report):
        def write(*args, **kwargs):
            inside.set()
            go_on.wait(60)
            return original(*args, **kwargs)

        return write

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflows, "write_report", hold())
        thread = threading.Thread(target=workflows.train, args=(config,))
        thread.start()
        assert inside.wait(60)
        for resume in (False, True):
            with pytest.raises(
                UserError,
                match=r"tiny is in use by another run; give this one a --name \(by this process",
            ):
                workflows.train(config, resume)
        script = tmp_path / "second.py"
        script.write_text(SECOND)
        other = run_tool(script, repr(to_dict(config)))
        assert other.returncode == 0, other.stderr
        assert re.search(r"tiny is in use by another run; .* \(by process \d+ on ", other.stdout), (
            other.stdout
        )
        go_on.set()
        thread.join()
    workflows.train(config, resume=True)
    assert not (Path(config.runs) / "tiny" / ".lock").exists()


def test_a_mistake_leaves_no_run_folder(tiny):
    with pytest.raises(UserError, match="nowhere"):
        workflows.train(changed(tiny, "data", root="nowhere"))
    assert not (Path(tiny.runs) / "tiny").exists()


def test_class_weights_are_counted_once(tiny, capsys, folder_data, tmp_path):
    """Kept in the run folder; counted again when a mask file has changed."""
    data = tmp_path / "data"
    shutil.copytree(folder_data, data)
    config = changed(
        changed(changed(tiny, "loss", class_weights="median"), "train", max_steps=2),
        "data",
        root=str(data),
    )
    run = engine.Run(config)
    run.train()
    first = run.class_weights
    assert "counting" in capsys.readouterr().out
    again = engine.Run(config, resume=True)
    assert "counting" not in capsys.readouterr().out
    assert torch.equal(again.class_weights, first)
    os.utime(data / "labels/train/s03.png", (1, 1))
    engine.Run(config, resume=True)
    assert "counting" in capsys.readouterr().out


def test_samples_are_drawn_for_classes(tiny):
    """The counts of a run without draws are not taken for one with them."""
    for rare in (0.0, 1.0, 1.0):
        config = changed(changed(tiny, "loss", class_weights="median"), "data", rare=rare)
        run = engine.Run(config, resume=(Path(tiny.runs) / "tiny/last.ckpt").exists())
        assert bool(run.images_of) == bool(rare)
        for index, own in enumerate(run.images_of):
            seen = [
                i for i in range(len(run.data.names)) if (read_truth(run.data, i) == index).any()
            ]
            assert own.tolist() == seen
    assert next(run._batches())["image"].shape[0] == config.train.batch


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_the_region_keeps_its_precision(tiny, precision):
    """bfloat16 has 8 bits: a crop's place would be off by up to 1/256 of the image."""
    run = engine.Run(changed(tiny, "train", precision=precision))
    seen = []
    run.network.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    batch = next(run._batches())
    run._step(batch)
    assert seen[0].dtype == torch.float32 and torch.equal(seen[0], batch["region"])
