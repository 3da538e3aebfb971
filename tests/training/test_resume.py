"""A killed or stopped run, resumed, ends in the same bits."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cfnseg.training.checkpoint import load_checkpoint
from cfnseg.training.log import read_log
from tests import processes
from tests.conftest import ENCODER, REPO


def command(root: Path, runs: Path, *extra: str) -> list[str]:
    settings = {
        "model.encoder": ENCODER,
        "model.encoder-weights": "None",
        "model.width": 16,
        "data.name": "folder",
        "data.root": root,
        "data.workers": 1,
        "train.epochs": 6,
        "train.val-every": 1,
        "train.batch": 4,
        "train.save-every": 2,
        "train.accelerator": "cpu",
        "train.pictures": 0,
        "optim.ema": 0.9,
        "runs": runs,
    }
    flags = [str(part) for key, value in settings.items() for part in (f"--{key}", value)]
    return [
        "tools/train_seg.py",
        "configs/shapes_cfn.py",
        *flags,
        "--data.crop",
        "64",
        "64",
        *extra,
    ]


def kill_after_a_save(args: list[str], runs: Path, number: int, after: int) -> processes.Tool:
    process = processes.Tool(*args, new_session=True, merged=True)
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
    done = processes.run(*command(folder_data, runs))
    assert done.returncode == 0, done.stderr
    return runs / "shapes_cfn"


@pytest.mark.parametrize(
    "number, after", [(signal.SIGKILL, 4), pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow)]
)
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
    done = processes.run(*command(folder_data, tmp_path, "--resume"))
    assert done.returncode == 0, done.stderr
    assert f"resumed at step {stopped} of 18" in done.stdout
    same_bits(tmp_path / "shapes_cfn", uninterrupted)


def same_bits(ours: Path, theirs: Path) -> None:
    """Two run folders hold the same state, weights and log."""
    one, two = load_checkpoint(ours / "last.ckpt"), load_checkpoint(theirs / "last.ckpt")
    assert one["state"] == two["state"]
    for part in ("model", "ema"):
        assert all(torch.equal(one[part][k], v) for k, v in two[part].items())
    for a, b in zip(one["optimizer"]["state"].values(), two["optimizer"]["state"].values()):
        assert all(torch.equal(a[k], b[k]) for k in b)
    assert (ours / "best.safetensors").read_bytes() == (theirs / "best.safetensors").read_bytes()
    assert read_log(ours / "log.jsonl") == read_log(theirs / "log.jsonl")


# the tool, with a signal to the whole process group (tool and loader processes) when a stage begins
STAGED = """
import functools, os, subprocess, sys
import cfnseg.training.run, cfnseg.training.start, cfnseg.training.tasks, cfnseg.workflows
from cfnseg.cli import run

stage, number = sys.argv.pop(1), int(sys.argv.pop(1))
places = {
    "start": (cfnseg.training.start, "build_model"),
    "epoch": (cfnseg.training.run.Run, "_step"),
    "validation": (cfnseg.training.tasks, "evaluate"),
    "report": (cfnseg.workflows, "write_report"),
}

def hit(function):
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        # not by the tool itself, which may end its workers
        subprocess.call(["kill", f"-{number}", "--", f"-{os.getpgrp()}"])
        return function(*args, **kwargs)
    return wrapped

if stage in places:
    owner, name = places[stage]
    setattr(owner, name, hit(getattr(owner, name)))
run("train")
"""


@pytest.mark.parametrize(
    "number, workers", [pytest.param(signal.SIGINT, 0, marks=pytest.mark.slow), (signal.SIGTERM, 2)]
)
def test_a_signal_to_the_group_at_every_stage(
    folder_data, tmp_path, uninterrupted, number, workers
):
    """No traceback, exit code 128 + signal, one last line; the run ends as an uninterrupted one."""
    script, last = tmp_path / "staged.py", tmp_path / "shapes_cfn" / "last.ckpt"
    script.write_text(STAGED)
    done = {}
    for stage in ("start", "epoch", "validation", "report", "end"):
        resume = ["--resume"] if last.exists() else []
        _, *args = command(folder_data, tmp_path, "--data.workers", str(workers), *resume)
        process = processes.Tool(script, stage, int(number), *args, new_session=True, merged=True)
        output, _ = process.communicate()
        assert "Traceback" not in output and "Error" not in output, output
        assert process.returncode == (0 if stage == "end" else 128 + number), output
        if stage == "start":
            assert output.splitlines()[-1] == f"stopped by {number.name}"
            assert not last.exists()
        elif stage != "end":
            assert output.splitlines()[-1].startswith(
                f"stopped by {number.name} and saved; continue with"
            )
            done[stage] = load_checkpoint(last)["state"]
    assert done["epoch"]["step"] == 1
    assert done["validation"]["step"] == 3 and done["validation"]["validated"] == 0
    assert done["report"]["step"] == 18
    same_bits(tmp_path / "shapes_cfn", uninterrupted)


@pytest.mark.slow
def test_twenty_random_stops(folder_data, tmp_path, uninterrupted):
    """`timeout -s TERM` at random moments, those of the imports included, for minutes."""
    draw, last = random.Random(0), tmp_path / "shapes_cfn" / "last.ckpt"
    codes = []
    for _ in range(20):
        resume = ["--resume"] if last.exists() else []
        limit = ["timeout", "--preserve-status", "-s", "TERM", f"{draw.uniform(0.1, 14):.2f}"]
        done = subprocess.run(
            [
                *limit,
                sys.executable,
                *command(folder_data, tmp_path, "--data.workers", "2", *resume),
            ],
            cwd=REPO,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert "Traceback" not in done.stdout, done.stdout
        assert done.returncode in (0, 143), done.stdout
        codes.append(done.returncode)
    print(codes)
    assert 143 in codes
    resume = ["--resume"] if last.exists() else []
    ended = processes.run(*command(folder_data, tmp_path, *resume))
    assert ended.returncode == 0, ended.stderr
    same_bits(tmp_path / "shapes_cfn", uninterrupted)
