"""The comparison command: interrupted, shared between processes, and read."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from cfnseg.config import Config
from cfnseg.config_values import to_dict
from cfnseg.errors import UserError
from cfnseg.lab.ablation import Results, Suite, finished, load_suite, run_suite, sharing
from cfnseg.lab.ablation_table import table_of, write_table
from cfnseg.training.checkpoint import load_checkpoint
from tests import processes
from tests.conftest import ENCODER, run_tool

SUITE = """
from dataclasses import replace
from cfnseg.lab.ablation import Suite
from cfnseg.config import Config, Data, Model, Optim, Train

base = Config(
    model=Model(encoder={encoder!r}, encoder_weights=None, width=16, grid=(2, 3)),
    data=Data(name="folder", crop=(64, 64), workers=0),
    optim=Optim(name="adamw", lr=3e-3),
    train=Train(max_steps={steps}, batch=4, accelerator="cpu", save_every=5, pictures=0,
                val_every=1000),
)
suite = Suite(reference="lc", size=(64, 64), classes=8, systems={{
    "lc": base, "sum": replace(base, model=replace(base.model, fusion="sum"))}})
"""


def write_suite(folder: Path, steps: int = 6, save_every: int = 5) -> Path:
    path = folder / "tiny_suite.py"
    path.write_text(
        SUITE.format(encoder=ENCODER, steps=steps).replace(
            "save_every=5", f"save_every={save_every}"
        )
    )
    return path


def result(score: float, counts: list, seed: int = 0, metric: str = "miou") -> dict:
    second = {"miou": "boundary_miou", "top1_error": "top5_error"}[metric]
    return {
        "metric": metric,
        "score": score,
        "counts": counts,
        "scores": {second: score / 2},
        "config": {"train": {"seed": seed}, "model": {"name": "cfn"}},
    }


COST = {
    "parameters": {"encoder": 90, "fusion": 5, "total": 100},
    "gmacs": 1.5,
    "head_gmacs": 0.25,
    "infer_ratio": 1.1,
    "step_ratio": 1.2,
    "step_seconds": 0.1,
    "step_peak_mib": 30.0,
    "device": "CPU, 1 threads",
}


def command(suite: Path, root: Path, out: Path) -> list[str]:
    return [
        "tools/benchmark.py",
        str(suite),
        "--seeds",
        "1",
        "--root",
        str(root),
        "--out",
        str(out),
    ]


def trained_steps(out: Path) -> dict[str, list[int]]:
    """Steps in each run's log: a run that was trained twice would have some twice."""
    return {
        log.parent.name: [
            row["step"]
            for line in log.read_text().splitlines()
            if "loss" in (row := json.loads(line))
        ]
        for log in sorted(out.glob("runs/*/log.jsonl"))
    }


def without_times(out: Path) -> list[list[str]]:
    """The tables' cells but for the measured times and memory."""
    lines = (out / "table.md").read_text().splitlines()
    cells = [line.split("|")[1:-1] for line in lines if line.startswith("| ")]
    return [row[:4] if len(row) == 5 else row[:8] for row in cells]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_and_started_again_it_ends_with_the_same_table_and_trains_nothing_twice(
    folder_data, tmp_path
):
    suite = write_suite(tmp_path, steps=40)
    whole = run_tool(
        "tools/benchmark.py",
        suite,
        "--seeds",
        1,
        "--root",
        folder_data,
        "--out",
        tmp_path / "whole",
    )
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("== ") == 4  # two runs, two costs

    cut = tmp_path / "cut"
    (cut / "results").mkdir(parents=True)
    for name in ("lc-s0", "lc-cost"):  # one system is finished, the other is killed under way
        (cut / "results" / f"{name}.json").write_bytes(
            (tmp_path / "whole" / "results" / f"{name}.json").read_bytes()
        )
    process = processes.Tool(*command(suite, folder_data, cut))
    checkpoint = cut / "runs" / "sum-s0" / "last.ckpt"
    deadline = time.time() + 120
    while not checkpoint.exists() and time.time() < deadline:
        time.sleep(0.05)
    assert checkpoint.exists()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (cut / "results" / "sum-s0.json").exists()

    again = run_tool(*command(suite, folder_data, cut))
    assert again.returncode == 0, again.stderr
    assert "== lc" not in again.stdout and "resumed at step" in again.stdout
    assert without_times(cut) == without_times(tmp_path / "whole")
    assert trained_steps(cut)["sum-s0"] == trained_steps(tmp_path / "whole")["sum-s0"]
    assert not (cut / "runs" / "lc-s0").exists()
    assert (cut / "plot.png").stat().st_size > 10_000


@pytest.mark.slow
def test_two_processes_share_the_runs(folder_data, tmp_path):
    suite, out = write_suite(tmp_path), tmp_path / "shared"
    both = [processes.Tool(*command(suite, folder_data, out)) for _ in range(2)]
    printed = [p.communicate()[0] for p in both]
    assert [p.returncode for p in both] == [0, 0]
    begun = [line for text in printed for line in text.splitlines() if line.startswith("== ")]
    assert sorted(begun) == ["== lc-cost", "== lc-s0", "== sum-cost", "== sum-s0"]
    for text in printed:  # nothing trains while a cost is measured
        begun = [line.split("-")[1] for line in text.splitlines() if line.startswith("== ")]
        assert begun == sorted(begun, reverse=True)


def test_how_to_share_a_machine():
    assert "start the command 4 times with OMP_NUM_THREADS=1" in sharing(threads=4, gpus=0)
    assert "CUDA_VISIBLE_DEVICES=0 to 7" in sharing(threads=4, gpus=8)
    assert sharing(threads=1, gpus=0) == sharing(threads=4, gpus=1) == ""


def test_results_of_other_settings_are_refused(tmp_path):
    suite = load_suite(write_suite(tmp_path))
    config = to_dict(suite.run("lc", 0, tmp_path / "runs"))
    config["optim"]["lr"] = 1.0
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "lc-s0.json").write_text(json.dumps({"config": config}))
    with pytest.raises(UserError, match=r"lc-s0.json was made with other settings \(optim.lr\)"):
        run_suite(suite, tmp_path, 1, only=["lc"])


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_rest_is_kept(folder_data, tmp_path):
    suite = tmp_path / "bad.py"
    text = SUITE.format(encoder=ENCODER, steps=3).replace(
        '"sum": replace(base, model=replace(base.model, fusion="sum"))',
        '"sum": replace(base, model=replace(base.model, fusion="summ")), "two": base',
    )
    suite.write_text(text)
    out = tmp_path / "out"
    done = run_tool("tools/benchmark.py", suite, "--seeds", 1, "--root", folder_data, "--out", out)
    assert done.returncode == 1
    assert (
        "'summ' is unknown; did you mean sum" in done.stderr
        and "sum-s0, sum-cost failed" in done.stderr
    )
    assert {p.stem for p in (out / "results").glob("*.json")} == {
        "lc-s0",
        "lc-cost",
        "two-s0",
        "two-cost",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("suite = 3", "defines no `suite"),
        (
            SUITE.format(encoder=ENCODER, steps=1).replace('reference="lc"', 'reference="mean"'),
            "'mean' is none of its systems lc, sum",
        ),
    ],
)
def test_no_suite(tmp_path, text, message):
    path = tmp_path / "s.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_suite(path)


@pytest.mark.parametrize("collect", [run_suite, finished])
def test_wrong_usage(tmp_path, collect):
    suite = load_suite(write_suite(tmp_path))
    with pytest.raises(UserError, match="'lcc' is unknown; did you mean lc"):
        collect(suite, tmp_path, 1, only=["lcc"])
    with pytest.raises(UserError, match="--seeds 0: expected 1 or more"):
        collect(suite, tmp_path, 0)


def test_no_place_for_results_and_broken_ones(tmp_path):
    suite = load_suite(write_suite(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written .*--out"):
        run_suite(suite, tmp_path / "file", 1)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "lc-s0.json").write_text("{")
    with pytest.raises(UserError, match="lc-s0.json is no result of this benchmark .*delete it"):
        run_suite(suite, tmp_path, 1)


def test_cost_of_another_size_is_refused(tmp_path):
    suite = load_suite(write_suite(tmp_path))
    (tmp_path / "results").mkdir()
    cost = {
        "config": to_dict(suite.run("lc", 0, tmp_path)),
        "size": [512, 512],
        "classes": 8,
        **COST,
    }
    (tmp_path / "results" / "lc-cost.json").write_text(json.dumps(cost))
    with pytest.raises(UserError, match=r"lc-cost.json was made with other settings \(size\)"):
        finished(suite, tmp_path, 1)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "number, send",
    [
        (signal.SIGTERM, os.kill),  # to the parent alone, as `kill` sends it
        # to parent and worker, as a terminal sends it
        pytest.param(signal.SIGINT, os.killpg, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_saves_before_it_stops(folder_data, tmp_path, number, send):
    suite, out = write_suite(tmp_path, steps=4000, save_every=10_000), tmp_path / "out"
    process = processes.Tool(*command(suite, folder_data, out), new_session=True)
    log = out / "runs" / "lc-s0" / "log.jsonl"
    deadline = time.time() + 120
    while time.time() < deadline and not (log.exists() and '"step": 10' in log.read_text()):
        time.sleep(0.05)
    send(process.pid, number)
    process.communicate(timeout=100)
    assert process.returncode == 128 + number
    saved = load_checkpoint(out / "runs" / "lc-s0" / "last.ckpt")["state"]["step"]
    logged = max(json.loads(line)["step"] for line in log.read_text().splitlines())
    assert saved >= logged >= 10


def test_table_by_hand():
    """Two seeds, two images, one class: IoU .5 and .7 against .4 and .4 everywhere."""
    half, more, less = ([[[x], [10], [10]]] * 2 for x in (20 / 3, 140 / 17, 40 / 7))
    suite = Suite(
        systems={"lc": Config(), "sum": Config(), "new": Config()},
        reference="sum",
        size=(4, 6),
        classes=1,
    )
    runs = {
        "lc": [result(0.5, half), result(0.7, more, 1)],
        "sum": [result(0.4, less), result(0.4, less, 1)],
        "new": [result(0.7, more, 1)],
    }
    lines = table_of(suite, Results(runs, {"lc": COST})).splitlines()
    cells = [
        [c.strip(" *") for c in line.split("|")[1:-1]] for line in lines if line.startswith("| ")
    ]
    folded = lines.index("</details>")
    assert 0 < next(k for k, line in enumerate(lines) if line.startswith("<details>")) < folded
    main, rest = cells[:4], cells[4:]
    assert main[0] == ["system", "mIoU", "less sum (95 % of seeds)", "head GMACs", "step / encoder"]
    assert main[1] == ["lc", "60.0", "+20.0 (-107.1 to +147.1)", "0.250", "1.20"]  # t(1) = 12.706
    assert main[2] == ["sum", "40.0", "-", "-", "-"]
    assert main[3] == ["new", "70.0", "+30.0", "-", "-"]  # against the seed that both have
    assert rest[1] == [
        "lc",
        "2",
        "14.1",
        "+20.0 (+20.0 to +20.0)",
        "30.0",
        "100",
        "5",
        "1.50",
        "1.10",
        "100 ms",
        "30 MiB",
    ]
    assert rest[2][:4] == ["sum", "2", "0.0", "-"] and rest[2][5:] == ["-"] * 6
    assert rest[3][:4] == ["new", "1", "-", "+30.0 (+30.0 to +30.0)"]


def test_error_table_and_plot(tmp_path):
    suite = load_suite(write_suite(tmp_path))
    runs = {
        "lc": [result(0.25, [0, 0, 0, 1], 0, "top1_error")],
        "sum": [result(0.5, [0, 1, 0, 1], 0, "top1_error")],
    }
    text = write_table(suite, Results(runs, {"lc": COST, "sum": COST}), tmp_path)
    assert "top-1 error" in text and "| sum | 50.0 | +25.0 | 0.250 |" in text
    assert "| sum | 1 | - | +25.0 (" in text and "| 25.0 |" in text
    assert (tmp_path / "table.md").read_text() == text
    for name in ("plot.png", "costs.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_table_only_trains_nothing(folder_data, tmp_path):
    suite = write_suite(tmp_path)
    done = run_tool("tools/benchmark.py", suite, "--out", tmp_path / "out", "--table-only")
    assert done.returncode == 1 and "no result of tiny_suite" in done.stderr
    assert not (tmp_path / "out" / "runs").exists()
