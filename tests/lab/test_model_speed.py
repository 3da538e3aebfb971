"""The benchmark of models: its cases, its table, and what a case that fails leaves."""

import json
import mmap

import pytest
import torch

from cfnseg.errors import UserError
from cfnseg.lab.model_speed import Case, cases, table_of
from cfnseg.timing import Peak, interleaved, peak_memory
from tests.conftest import ENCODER, run_tool


def row(model: str, step: float, infer: float, **more) -> dict:
    kinds = {
        f"{kind}_{key}": value
        for kind, seconds in (("step", step), ("infer", infer))
        for key, value in (
            ("seconds", seconds),
            ("encoder", 0.1),
            ("range", [seconds / 2, 2 * seconds]),
            ("ratio", seconds / 0.1),
            ("peak_mib", 512.0),
            ("over_eager", None),
        )
    }
    return {
        "model": model,
        "size": [64, 96],
        "batch": 4,
        "compile": False,
        "parameters": {"encoder": 1000, "total": 1500},
        "gmacs": 0.5,
        "device": "CPU, 1 threads",
        "precision": "32-true",
        **kinds,
        **more,
    }


def cells(text: str) -> list[list[str]]:
    return [
        [c.strip() for c in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]


def test_every_combination_and_unknown_names():
    found = cases(["cfn", "fpn"], [(64, 64), (32, 96)], [1, 2], both=True)
    assert len(found) == len(set(found)) == 16
    assert cases(["cfn"], [(64, 64)], [2], both=False) == [Case("cfn", (64, 64), 2, False)]
    with pytest.raises(UserError, match="'fnp' is unknown; did you mean fpn"):
        cases(["cfn", "fnp"], [(64, 64)], [1], both=False)
    with pytest.raises(UserError, match="nothing to measure"):
        cases([], [(64, 64)], [1], both=False)


def test_table_by_hand():
    fpn = {**row("fpn", 1, 1), "step_peak_mib": None, "step_over_eager": 0.75}
    unet = {
        "model": "unet",
        "size": [64, 96],
        "batch": 4,
        "compile": True,
        "error": "no | compiler",
    }
    text = table_of([row("cfn", 0.2, 0.4), fpn, unet], "lite")
    head, bare, cfn, fpn, failed = cells(text)
    assert len({len(line) for line in (head, bare, cfn, fpn, failed)}) == 1
    assert bare == [
        "bare lite",
        "4 x 64x96",
        "no",
        "1,000",
        "-",
        "100 ms",
        "-",
        "1",
        "-",
        "40.0",
        "-",
        "100 ms",
        "-",
        "1",
        "-",
        "40.0",
        "-",
    ]
    assert cfn == [
        "cfn",
        "4 x 64x96",
        "no",
        "1,500",
        "0.50",
        "200 ms",
        "100 to 400 ms",
        "2.00",
        "-",
        "20.0",
        "0.50",
        "400 ms",
        "200 to 800 ms",
        "4.00",
        "-",
        "10.0",
        "0.50",
    ]
    assert fpn[8] == "0.75" and fpn[10] == "-" and fpn[14] == "-" and fpn[16] == "0.50"
    assert failed[:4] == ["unet", "4 x 64x96", "yes", "failed: no / compiler"]


@pytest.mark.slow
def test_the_tool_measures_and_names_what_fails(tmp_path):
    out = tmp_path / "out"
    command = [
        "tools/bench_models.py",
        "--encoder",
        ENCODER,
        "--batches",
        2,
        "--rounds",
        1,
        "--sizes",
        64,
        64,
        "--out",
        out,
    ]
    done = run_tool(*command, "--models", "cfn", "fcn")
    assert done.returncode == 0, done.stderr
    rows = json.loads((out / "models.json").read_text())
    assert [r["model"] for r in rows] == ["cfn", "fcn"] and all(
        r["step_ratio"] > 0 and r["step_peak_mib"] > 0 for r in rows
    )
    assert (out / "models.md").read_text() in done.stdout and (out / "models.png").read_bytes()[
        :4
    ] == b"\x89PNG"
    failed = run_tool(
        *command[:1], "--encoder", "tf_efficientnet_lite", *command[3:], "--models", "cfn"
    )
    assert (
        failed.returncode == 1
        and "| failed: error: model.encoder 'tf_efficientnet_lite'" in failed.stdout
    )
    assert "1 of 1 cases failed" in failed.stderr


def test_works_are_interleaved_and_peak_counts_freed_memory():
    calls = []
    times = interleaved([lambda: calls.append("a"), lambda: calls.append("b")], 3)
    assert times.shape == (3, 2) and "".join(calls) == "ab" * 4
    peak = Peak()
    with mmap.mmap(-1, 50_000_000) as block:  # new pages, whatever the process keeps of freed ones
        block[:] = bytes(1) * len(block)
    assert peak.added() >= 48_000_000


def test_peak_memory_is_of_the_second_run():
    """25 MB in use before and 100 MB in the first run alone do not count."""
    kept, sizes = torch.ones(25 * 2**18), [100, 50]
    assert 49 * 2**20 <= peak_memory(lambda: torch.ones(sizes.pop(0) * 2**18)) <= 52 * 2**20
    assert kept.sum() == 25 * 2**18
