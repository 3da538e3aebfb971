"""Several processes: the same matrix and the same step at 1 and 3 (test_hosts.py has 2)."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import ENCODER, REPO, run_tool

WORKER = """
import dataclasses, json, sys
import numpy as np, torch
from cfnseg.config import Config, Data, Loss, Model, Optim, Train
from cfnseg.evaluation.segmentation import evaluate
from cfnseg.training.hardware import leave_processes
from cfnseg.training.run import Run

root, out, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
config = Config(
    model=Model(encoder={encoder!r}, encoder_weights=None, width=16, grid=(2, 3), dropout=0.0),
    data=Data(name="folder", root=root, crop=(64, 64), workers=0),
    optim=Optim(name="sgd", lr=0.05, clip=1.0), loss=Loss(class_weights="median"),
    train=Train(max_steps=steps, batch=6, accelerator="cpu", pictures=0), name="run", runs=out)
run = Run(config)
result = evaluate(run.network, run.val, workers=0, rank=run.rank, world=run.world, details=True)
if run.rank == 0:
    np.savez(out + "/matrix.npz", confusion=result.confusion, counts=result.counts,
             loss=result.loss, presence=result.presence,
             calibration=result.calibration, boundary=result.details.boundary,
             trimap=result.details.trimap, sizes=result.details.sizes)
run.train()
if run.rank == 0:
    torch.save({{k: v for k, v in run.network.state_dict().items()}}, out + "/weights.pt")
del run
leave_processes()
"""


def launch(tmp_path: Path, root: Path, world: int, steps: int) -> Path:
    script, out = tmp_path / "worker.py", tmp_path / f"world{world}"
    script.write_text(WORKER.format(encoder=ENCODER))
    out.mkdir()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", world]
    done = run_tool(*(torchrun if world > 1 else ()), script, root, out, steps)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def worlds(tmp_path_factory, folder_data):
    tmp_path = tmp_path_factory.mktemp("worlds")
    return {world: launch(tmp_path, folder_data, world, steps=1) for world in (1, 3)}


def test_evaluation_is_identical(worlds):
    one, *others = (np.load(worlds[w] / "matrix.npz") for w in (1, 3))
    assert one["confusion"].sum() > 0
    for other in others:
        for counted in ("confusion", "counts", "boundary", "trimap", "sizes"):
            assert one[counted].any() and np.array_equal(one[counted], other[counted]), counted
        np.testing.assert_allclose(one["calibration"], other["calibration"], rtol=1e-9)
        np.testing.assert_allclose(one["presence"], other["presence"], rtol=1e-6)
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-9)


def test_a_step_of_three_processes_is_a_step_of_one(worlds):
    one, three = (torch.load(worlds[w] / "weights.pt", weights_only=True) for w in (1, 3))
    assert one.keys() == three.keys()
    for key, value in one.items():
        torch.testing.assert_close(
            three[key], value, rtol=0, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}"
        )


@pytest.mark.slow
def test_train_tool_under_torchrun(folder_data, tmp_path):
    flags = [
        "--model.encoder",
        ENCODER,
        "--model.encoder-weights",
        "None",
        "--model.width",
        "16",
        "--data.name",
        "folder",
        "--data.root",
        str(folder_data),
        "--data.crop",
        "64",
        "64",
        "--data.workers",
        "0",
        "--train.max-steps",
        "3",
        "--train.batch",
        "4",
        "--train.accelerator",
        "cpu",
        "--train.pictures",
        "2",
        "--runs",
        str(tmp_path),
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "tools/train_seg.py",
            "configs/shapes_cfn.py",
            *flags,
        ],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "3 steps of 4 on 2 x cpu" in done.stdout
    assert done.stdout.count("report:") == 1
    report = json.loads((tmp_path / "shapes_cfn" / "report" / "report.json").read_text())
    assert report["num_images"] == 5
