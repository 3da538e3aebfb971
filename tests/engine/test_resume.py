"""A killed run, resumed, ends in the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cfnseg.engine.checkpoint import load_checkpoint
from cfnseg.engine.log import read_log
from tests.conftest import ENCODER, REPO


def command(root: Path, runs: Path, *extra: str) -> list[str]:
    settings = {"model.encoder": ENCODER, "model.encoder-weights": "None", "model.width": 16, "data.name": "folder",
                "data.root": root, "data.workers": 1, "train.epochs": 6, "train.batch": 4, "train.save-every": 2,
                "train.accelerator": "cpu", "train.pictures": 0, "optim.ema": 0.9, "runs": runs}
    flags = [str(part) for key, value in settings.items() for part in (f"--{key}", value)]
    return [sys.executable, "tools/train_seg.py", "configs/shapes_cfn.py", *flags, "--data.crop", "64", "64", *extra]


def kill_after_a_save(args: list[str], runs: Path, number: int, after: int) -> subprocess.Popen:
    process = subprocess.Popen(args, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True)
    until = time.time() + 120
    checkpoint = runs / "shapes_cfn" / "last.ckpt"
    while time.time() < until and process.poll() is None:
        if checkpoint.exists() and load_checkpoint(checkpoint)["state"]["step"] >= after:
            os.killpg(process.pid, number)  # as a terminal does: the loader's processes get it too
            break
        time.sleep(0.02)
    return process


@pytest.fixture(scope="module")
def uninterrupted(folder_data, tmp_path_factory):
    runs = tmp_path_factory.mktemp("whole")
    subprocess.run(command(folder_data, runs), cwd=REPO, check=True, capture_output=True)
    return runs / "shapes_cfn"


@pytest.mark.parametrize("number, after", [(signal.SIGKILL, 4), (signal.SIGINT, 2)])
def test_bit_identical_after_a_kill(folder_data, tmp_path, uninterrupted, number, after):
    process = kill_after_a_save(command(folder_data, tmp_path), tmp_path, number, after)
    output, _ = process.communicate(timeout=120)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in output.splitlines()[-1]
    else:
        assert process.returncode == -signal.SIGKILL
    stopped = load_checkpoint(tmp_path / "shapes_cfn" / "last.ckpt")["state"]["step"]
    assert stopped < 18
    done = subprocess.run(command(folder_data, tmp_path, "--resume"), cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"resumed at step {stopped} of 18" in done.stdout
    ours, theirs = (load_checkpoint(f / "last.ckpt") for f in (tmp_path / "shapes_cfn", uninterrupted))
    assert ours["state"] == theirs["state"]
    for part in ("model", "ema"):
        assert all(torch.equal(ours[part][k], v) for k, v in theirs[part].items())
    for a, b in zip(ours["optimizer"]["state"].values(), theirs["optimizer"]["state"].values()):
        assert all(torch.equal(a[k], b[k]) for k in b)
    assert (tmp_path / "shapes_cfn" / "best.safetensors").read_bytes() == (uninterrupted / "best.safetensors").read_bytes()
    assert read_log(tmp_path / "shapes_cfn" / "log.jsonl") == read_log(uninterrupted / "log.jsonl")
