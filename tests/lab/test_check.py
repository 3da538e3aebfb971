"""cfnseg check: the report, the exit codes, and a wrong operation found."""

import re

import pytest
import torch

from cfnseg.lab import check
from cfnseg.lab.op_speed import Case
from cfnseg.ops import dense_lean as lean
from cfnseg.ops import proof
from tests.conftest import run_tool


@pytest.fixture
def small(monkeypatch):
    """One dtype, small maps, and no GPU."""
    monkeypatch.setattr(proof, "BOUNDS", {torch.float32: 2e-5})
    monkeypatch.setattr(
        check,
        "CASES",
        {
            "lc_fuse": (Case("lc_fuse", 1, (64, 64), 32, (2, 2)),),
            "cross_entropy": (Case("cross_entropy", 1, (256, 256), 40),),
            "classes": (Case("argmax", 1, (256, 256), 40),),
        },
    )
    monkeypatch.setattr(check, "ROUNDS", 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def test_all_right(small, capsys):
    assert check.check() == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 100
    for name in (
        "cfnseg",
        "python",
        "system",
        "torch",
        "triton",
        "timm",
        "lightning",
        "CUDA",
        "CPU threads",
        "CFNSEG_OPS",
    ):
        assert re.search(rf"^{name} +\S", text, re.M), name
    assert "CUDA is not available" in text and "All is right." in text and "WRONG" not in text
    rows = [line for line in lines if line.startswith(("lc_fuse", "cross_entropy", "classes"))]
    assert len(rows) == 6 and re.search(r"copies \d+\.\d GB/s", text)
    memory = {tuple(row.split()[:2]): float(row.split()[-2]) for row in rows}
    assert 0 < memory["cross_entropy", "lean"] < 0.7 * memory["cross_entropy", "reference"] < 200
    for row in rows:
        assert re.search(
            r"(-|\d\.\de-\d\d) +(-|2e-05) +\d+\.\d\d ms +\d+\.\d% +-?\d+\.\d MiB$", row
        )


def test_a_wrong_operation_and_one_that_raises_are_found(small, capsys, monkeypatch):
    plain = lean.scores
    monkeypatch.setattr(lean, "scores", lambda *args: (plain(*args)[0], plain(*args)[1] * 1.001))
    monkeypatch.setattr(lean, "sums", lambda *args: 1 / 0)
    assert check.check() == 1
    text = capsys.readouterr().out
    assert re.search(
        r"^classes +lean +float32 +WRONG: "
        r"differs from the reference by \d\.\de-04, more than 2e-05$",
        text,
        re.M,
    )
    assert re.search(
        r"^cross_entropy +lean +float32 +WRONG: ZeroDivisionError: division by zero$", text, re.M
    )
    assert "WRONG: 2 of 6" in text and "All is right" not in text


@pytest.mark.slow
def test_the_whole_check():
    done = run_tool("-m", "cfnseg", "check", timeout=280)
    assert done.returncode == 0 and "All is right." in done.stdout, done.stdout + done.stderr


def test_a_kernel_that_fails_its_proof_is_wrong(monkeypatch):
    """Triton's rows ask for a new proof, whatever is remembered."""
    monkeypatch.setattr(proof, "prove", lambda *what: "its test died (SIGABRT)")
    row = check.Row("lc_fuse", "triton", torch.float32)
    check.judge(row, torch.device("cpu"))
    assert row.wrong == "its test died (SIGABRT)" and "WRONG: its test died" in str(row)
