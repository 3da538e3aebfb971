"""The benchmark of operations: all versions agree; the table names what ran and what failed."""

import pytest
import torch

from cfnseg.lab import op_speed
from cfnseg.lab.op_speed import Case, cases, measure, moved_bytes, table_of, versions
from tests.conftest import run_tool


def test_cases():
    found = cases(["lc_fuse", "argmax"], [2, 8], [0.5])
    assert (
        len(found) == 8
        and found[0] == Case("lc_fuse", 2, (64, 64), 128, (6, 8))
        and found[-1] == Case("argmax", 2, (256, 256), 150)
    )


@pytest.mark.parametrize("op", ["lc_fuse", "cross_entropy", "argmax"])
def test_every_version_runs_on_the_same_inputs(op):
    case = Case(op, 2, (16, 24), 5, (2, 3))
    works = versions(case, "cpu", torch.float32, compiled=False)
    assert list(works) == ["eager", *["unfold"] * (op == "lc_fuse"), "lean"]
    for work in works.values():
        work()
    if op != "argmax":
        grads = [works[name]() for name in ("eager", "lean")]
        assert len(grads[0]) == len(grads[1]) >= 1 and grads[0][0] is not None
        for one, other in zip(*grads):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_rows_and_table(monkeypatch):
    peaks = iter([2**22, 2**23, 2**20])
    monkeypatch.setattr(op_speed, "peak_memory", lambda work, cuda: next(peaks))
    case = Case("lc_fuse", 1, (8, 8), 4, (2, 2))
    rows = measure(case, "cpu", torch.float32, 3, compiled=False)
    assert [row["version"] for row in rows] == ["eager", "unfold", "lean"] and all(
        len(row["times"]) == 3 for row in rows
    )
    text = table_of(
        [*rows, {"case": "x", "version": "compiled eager", "error": "no | compiler"}],
        "cpu",
        torch.float32,
    )
    lean = next(line for line in text.splitlines() if "| lean |" in line)
    assert "lc_fuse, 1 x 8x8, K = 4, grid 2x2" in lean and lean.endswith("| 1 MiB | 0.25 |")
    assert "| x | compiled eager | failed: no / compiler | - | - | - | - |" in text
    assert moved_bytes(Case("lc_fuse", 1, (8, 8), 4), 4) == 3 * 4 * 4 * (64 + 64 + 16 + 4 + 1)


@pytest.mark.slow
def test_the_tool(tmp_path):
    done = run_tool(
        "tools/bench_ops.py",
        "--ops",
        "argmax",
        "--batches",
        1,
        "--scale",
        0.1,
        "--rounds",
        2,
        "--out",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ops.md").read_text() in done.stdout and "MiB" in done.stdout
    assert (tmp_path / "ops.png").read_bytes()[:4] == b"\x89PNG"
