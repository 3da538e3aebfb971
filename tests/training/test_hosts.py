"""Two hosts that share the data alone: two torchrun nodes in different working directories."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cfnseg.models.weights import load
from cfnseg.training.checkpoint import load_checkpoint
from tests.conftest import ENCODER, REPO


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def settings(root: Path, *extra: str) -> list[str]:
    """A run without dropout, whose masks differ by process."""
    flags = {
        "model.encoder": ENCODER,
        "model.encoder-weights": "None",
        "model.width": "16",
        "model.dropout": "0",
        "data.name": "folder",
        "data.workers": "0",
        "train.epochs": "4",
        "train.batch": "4",
        "train.save-every": "2",
        "train.accelerator": "cpu",
        "train.pictures": "1",
        "optim.name": "sgd",
        "optim.lr": "0.01",
        "loss.class-weights": "median",
        "loss.image": "0.1",
        "data.root": str(root),
    }
    return [part for key, value in flags.items() for part in (f"--{key}", value)] + [
        "--data.crop",
        "64",
        "64",
        *extra,
    ]


def start(folder: Path, rank: int, port: int, args: list[str]) -> subprocess.Popen:
    """A node of two in a working directory of its own."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes",
            "2",
            "--node-rank",
            str(rank),
            "--nproc-per-node",
            "1",
            "--master-addr",
            "127.0.0.1",
            "--master-port",
            str(port),
            str(REPO / "tools/train_seg.py"),
            str(REPO / "configs/shapes_cfn.py"),
            *args,
        ],
        cwd=folder,
        stdout=(folder / "out.txt").open("w"),
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(REPO), "GLOO_SOCKET_IFNAME": "lo"},
    )


def kill(node: subprocess.Popen) -> None:
    """SIGKILL to a node's torchrun and its processes, which have a session of their own."""
    pids, left = [], [node.pid]
    while left:
        pids.append(left.pop())
        found = subprocess.run(
            ["pgrep", "-P", str(pids[-1])], capture_output=True, text=True, check=False
        )
        left += [int(pid) for pid in found.stdout.split()]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def both(tmp_path: Path, args: list[str]) -> list[subprocess.Popen]:
    port = free_port()
    return [start(tmp_path / f"host{rank}", rank, port, args) for rank in (0, 1)]


def finish(nodes: list[subprocess.Popen], limit: float = 200) -> list[int]:
    """Exit codes; a node that does not end is killed and its code is -9."""
    until = time.time() + limit
    for node in nodes:
        try:
            node.wait(max(1, until - time.time()))
        except subprocess.TimeoutExpired:
            kill(node)
            node.wait()
    return [node.returncode for node in nodes]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, folder_data):
    """The run in one process."""
    home = tmp_path_factory.mktemp("alone")
    subprocess.run(
        [
            sys.executable,
            str(REPO / "tools/train_seg.py"),
            str(REPO / "configs/shapes_cfn.py"),
            *settings(folder_data),
        ],
        cwd=home,
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    return home / "runs" / "shapes_cfn"


@pytest.mark.parametrize("killed", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_two_hosts_train_are_killed_resume_and_report(tmp_path, folder_data, alone, killed):
    nodes = both(tmp_path, settings(folder_data))
    last = tmp_path / "host0/runs/shapes_cfn/last.ckpt"
    until = time.time() + 150
    while time.time() < until and nodes[0].poll() is None:
        if last.exists() and load_checkpoint(last)["state"]["step"] >= 4:
            break
        time.sleep(0.02)
    kill(nodes[killed])
    codes = finish(nodes, 120)
    other = (tmp_path / f"host{1 - killed}/out.txt").read_text()
    assert codes[1 - killed] != 0
    assert "another process of the run is gone" in other, (codes, other)
    assert load_checkpoint(last)["state"]["step"] < 12

    nodes = both(tmp_path, settings(folder_data, "--resume"))
    codes = finish(nodes)
    outputs = [(tmp_path / f"host{rank}/out.txt").read_text() for rank in (0, 1)]
    assert codes == [0, 0], outputs
    assert "resumed at step" in outputs[0]
    # torch's launchers may lose each other as they end
    said = [x for x in "".join(outputs).splitlines() if "torch/distributed/elastic" not in x]
    assert not any("Traceback" in line for line in said)
    assert (tmp_path / "host0/runs/shapes_cfn/report/report.html").exists()
    assert not (tmp_path / "host1/runs").exists(), "rank 0 alone writes"
    ours, theirs = (
        load(folder / "best.safetensors").model.state_dict() for folder in (last.parent, alone)
    )
    for key, value in theirs.items():
        torch.testing.assert_close(
            ours[key], value, rtol=0, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}"
        )


def test_one_error_for_all(tmp_path, folder_data):
    """A host without the data: the run ends everywhere, with one line that says where."""
    shutil.copytree(folder_data, tmp_path / "host0/data/folder")
    codes = finish(both(tmp_path, settings(Path("data/folder"))), 90)
    outputs = [(tmp_path / f"host{rank}/out.txt").read_text() for rank in (0, 1)]
    assert all(codes) and -9 not in codes
    assert (
        "(process 1 on " in outputs[0]
        and outputs[0].count("error: ") == 1
        and "error: " not in outputs[1]
    ), outputs


@pytest.mark.slow
def test_hosts_with_other_images(tmp_path, folder_data):
    for rank in (0, 1):
        shutil.copytree(folder_data, tmp_path / f"host{rank}/data/folder")
    for kind in ("images", "labels"):
        folder = tmp_path / "host1/data/folder" / kind / "train"
        (folder / "s00.png").rename(folder / "other.png")
    codes = finish(both(tmp_path, settings(Path("data/folder"))), 90)
    assert all(codes) and -9 not in codes
    assert (
        "the training images or classes differ from those of rank 0"
        in (tmp_path / "host0/out.txt").read_text()
    )
