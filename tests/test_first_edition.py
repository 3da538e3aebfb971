"""Weights and a checkpoint of cfnseg 0.1.0 (tests/first_edition) load, score and resume.

Made by 0.1.0 at commit 16753bf: 450 of 600 steps on the built-in scenes, saved by its own code.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

import cfnseg
from cfnseg.config import Config, Data, Model, Optim, Train
from cfnseg.data.dataset import open_dataset

FILES = Path(__file__).parent / "first_edition"


def test_weights_score_to_the_same_digits():
    loaded = cfnseg.load(FILES / "best.safetensors")
    result = cfnseg.evaluate(loaded.model, open_dataset("shapes", "", "val"), workers=0, limit=12)
    assert result.scores.miou == pytest.approx(0.15768436900751162, abs=1e-12)
    assert result.confusion.diagonal().tolist() == [184302, 194312, 0, 0, 0, 0, 0, 0]
    assert result.loss == pytest.approx(1.033309860120225, rel=1e-5)
    assert loaded.score["miou"] == 0.15059 and loaded.score["step"] == 400


def test_a_checkpoint_resumes(tmp_path):
    home = tmp_path / "first_edition"
    home.mkdir()
    for name in ("last.ckpt", "best.safetensors", "log.jsonl"):
        shutil.copy(FILES / name, home / name)
    config = Config(
        name="first_edition",
        runs=str(tmp_path),
        model=Model(
            encoder="test_efficientnet",
            encoder_weights=None,
            strides=(4, 8, 16, 32),
            width=8,
            grid=(2, 3),
            fusion_norm="none",
            dropout=0.1,
            **Model.BEFORE,
        ),
        data=Data(name="shapes", crop=(64, 96), workers=0),
        optim=Optim(name="adamw", lr=3e-3, ema=0.9),
        train=Train(batch=2, max_steps=600, save_every=50, pictures=0),
    )
    before = torch.load(FILES / "last.ckpt", weights_only=True)
    cfnseg.train(config, resume=True)
    after = torch.load(home / "last.ckpt", weights_only=True)
    assert after["state"]["step"] == 600
    assert after["model"].keys() == before["model"].keys()
    steps = {int(state["step"]) for state in after["optimizer"]["state"].values()}
    assert steps == {600}
    rows = [json.loads(line) for line in (home / "log.jsonl").read_text().splitlines()]
    kept = [json.loads(line) for line in (FILES / "log.jsonl").read_text().splitlines()]
    assert [r for r in rows if r["step"] <= 400] == [r for r in kept if r["step"] <= 400]
    first, last = (next(r for r in rows if r["step"] == s and "loss" in r) for s in (460, 600))
    assert abs(first["lr"] - kept[-1]["lr"]) < 1e-4 and last["lr"] < 1e-4
