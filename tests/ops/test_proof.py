"""A Triton kernel runs only after a proof; any fault ends in a right result and one line."""

import json
import os
import subprocess
import sys
from importlib import import_module
from itertools import count
from textwrap import dedent

import pytest
import torch

from cfnseg.ops import dispatch, lc_fuse, lc_fuse_reference, proof
from tests.conftest import run_tool

CPU = torch.device("cpu")
LINE = "The lean version runs instead. To report this: python -m cfnseg check"
FAULTS = {
    "raises": "raise RuntimeError('planted')",
    "is wrong": "plain(kernel, grid, *args, **constants); args[0].mul_(1.01)",
    "kills its process": "os.abort()",
    "leaves": "os._exit(0)",
    "is right": "plain(kernel, grid, *args, **constants)",
}
REASONS = {
    "raises": "planted",
    "is wrong": "its result differs from the reference by ",
    "kills its process": "its test died (SIGABRT)",
    "leaves": "its test ended without a verdict",
}
WORK = """
    import torch
    from cfnseg.ops import dispatch, lc_fuse, lc_fuse_reference
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, 6 >> s, 8 >> s, requires_grad=True) for s in range(2)]
    weight = torch.randn(2, 3, 2, 2, requires_grad=True)
    bias = torch.randn(3, 2, 2, requires_grad=True)
    for _ in range(2):
        results = []
        for function in (lc_fuse, lc_fuse_reference):
            out = function(maps, weight, bias, None, (6, 8))
            results.append((out, *torch.autograd.grad(out.square().sum(), (*maps, weight, bias))))
        for ours, theirs in zip(*results):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    print("right, by", dispatch.version_for(maps[0], "lc_fuse"))
"""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    """CFNSEG_OPS=triton, a cache folder per test, and no state from other tests."""
    monkeypatch.setattr(dispatch, "_off", set())
    monkeypatch.setenv("CFNSEG_OPS", "triton")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RANK", raising=False)
    yield
    proof._verdict.cache_clear()
    dispatch.say.cache_clear()


@pytest.fixture
def probed(monkeypatch):
    """Triton seems present; each examination returns the next of ``verdicts``."""

    def answer(*verdicts):
        left, asked = iter(verdicts), count(1)
        monkeypatch.setattr(proof, "missing", lambda device: "")
        monkeypatch.setattr(proof, "_key", lambda *what: {"what": str(what), "device": "a GPU"})
        monkeypatch.setattr(proof, "_examine", lambda *what: (next(left), next(asked))[0])
        return asked

    return answer


def lines(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("cfnseg:")]


@pytest.mark.parametrize(
    "fault",
    [pytest.param(f, marks=[pytest.mark.slow] * (f in ("is right", "leaves"))) for f in FAULTS],
)
def test_planted_faults_in_the_interpreter(fault, tmp_path):
    """sitecustomize patches the launch in every process, also in the proof's child."""
    pytest.importorskip("triton")
    (tmp_path / "sitecustomize.py").write_text(
        dedent(f"""
        import os
        from cfnseg.ops import dispatch
        plain = dispatch.launch
        def run(kernel, grid, *args, **constants):
            {FAULTS[fault]}
        dispatch.launch = run
    """)
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    env = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = run_tool("-c", dedent(WORK), env=env)
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stderr.splitlines() if line.startswith("cfnseg:")]
    if fault == "is right":
        assert done.stdout == "right, by triton\n" and not printed
    else:
        assert done.stdout == "right, by lean\n" and len(printed) == 1 and printed[0].endswith(LINE)
        assert (
            "Triton's lc_fuse in float32 is not used on the interpreter: " in printed[0]
            and REASONS[fault] in printed[0]
        )
    assert len(list((tmp_path / "cache/cfnseg/proofs").glob("*.json"))) == 1


def test_a_verdict_is_asked_for_once_and_remembered(probed, capsys, monkeypatch):
    probed(("", True), ("it is wrong", True))
    assert all(proof.holds("lc_fuse", torch.float32, CPU) for _ in range(3))
    assert not any(proof.holds("lc_fuse", torch.bfloat16, CPU) for _ in range(3))
    assert lines(capsys) == [
        f"cfnseg: Triton's lc_fuse in bfloat16 is not used on a GPU: it is wrong. {LINE}"
    ]
    proof._verdict.cache_clear()  # a new process; _examine has no answer left
    dispatch.say.cache_clear()
    assert proof.holds("lc_fuse", torch.float32, CPU) and not proof.holds(
        "lc_fuse", torch.bfloat16, CPU
    )
    assert len(lines(capsys)) == 1
    monkeypatch.setenv("RANK", "1")  # only rank 0 prints
    dispatch.say.cache_clear()
    assert not proof.holds("lc_fuse", torch.bfloat16, CPU) and not lines(capsys)


def test_what_may_pass_is_not_remembered_and_a_broken_record_is_none(probed):
    probed(("its test ran out of memory", False), ("", True), ("", True))
    assert not proof.holds("lc_fuse", torch.float32, CPU) and not list(
        proof.folder().glob("*.json")
    )
    proof._verdict.cache_clear()
    assert proof.holds("lc_fuse", torch.float32, CPU)
    (record,) = proof.folder().glob("*.json")
    for text in ("", "[]", '{"reason": 1}', "\0"):
        record.write_text(text)
        assert proof._read(record) is None
    proof._verdict.cache_clear()
    assert (
        proof.holds("lc_fuse", torch.float32, CPU)
        and json.loads(record.read_text())["reason"] == ""
    )
    assert not list(proof.folder().glob("*.tmp"))


def test_another_kernel_triton_or_gpu_asks_anew(monkeypatch, tmp_path):
    pytest.importorskip("triton")
    keys = [proof._key("lc_fuse", torch.float32, CPU), proof._key("lc_fuse", torch.float16, CPU)]
    monkeypatch.setattr(proof, "version", lambda package: "99")
    keys.append(proof._key("lc_fuse", torch.float32, CPU))
    for path in proof.SOURCES:
        assert (proof.HERE / path).is_file()
        (tmp_path / path).write_text("x = 1")
    monkeypatch.setattr(proof, "HERE", tmp_path)
    keys.append(proof._key("lc_fuse", torch.float32, CPU))
    assert len({proof._path(key) for key in keys}) == len(keys)


def test_a_cache_that_cannot_be_written(probed, capsys, tmp_path):
    probed(("", True))
    (tmp_path / "cache").write_text("a file")
    assert not proof.holds("classes", torch.float32, CPU) and not proof.holds(
        "lc_fuse", torch.float32, CPU
    )
    (line,) = lines(capsys)
    assert str(tmp_path / "cache") in line and line.endswith(LINE)


def test_a_child_that_does_not_end_or_start(monkeypatch, tmp_path):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/pid\nwait\n")
    monkeypatch.setattr(proof, "SECONDS", 1)
    monkeypatch.setattr(sys, "executable", str(script))
    assert proof._examine("lc_fuse", torch.float32, CPU) == (
        "its test could not start (Permission denied)",
        False,
    )
    script.chmod(0o755)
    assert proof._examine("lc_fuse", torch.float32, CPU) == ("its test did not end in 1 s", False)
    with pytest.raises(ProcessLookupError):
        wait_for_end(int((tmp_path / "pid").read_text()))


def wait_for_end(pid):
    import time

    for _ in range(50):
        os.kill(pid, 0)
        time.sleep(0.1)


def test_many_processes_prove_once(tmp_path):
    program = dedent(f"""
        import pathlib, time, torch
        from cfnseg.ops import proof
        def examine(*what):
            time.sleep(1)
            with pathlib.Path({str(tmp_path / "proofs")!r}).open("a") as file:
                file.write("x")
            return "", True
        proof._examine, proof.missing = examine, lambda device: ""
        proof._key = lambda *what: {{"device": "a GPU"}}
        assert proof.holds("lc_fuse", torch.float32, torch.device("cpu"))
    """)
    children = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [child.wait(100) for child in children] == [0, 0, 0]
    assert (tmp_path / "proofs").read_text() == "x"


@pytest.mark.parametrize(
    "found, part",
    [
        ({"torch": "2.6.0+cu124", "triton": "3.2.0"}, "torch >= 2.7, and 2.6.0+cu124 is installed"),
        ({"torch": "2.14.0", "triton": "3.2.0"}, "triton >= 3.3, and 3.2.0 is installed"),
        ({"torch": "2.14.0"}, "triton is not installed"),
        ({"torch": "2.7.0", "triton": "3.3.0"}, "needs CUDA, and the tensors are on cpu"),
    ],
)
def test_without_what_triton_needs_one_line_for_all_operations(found, part, monkeypatch, capsys):
    def version(name):
        if name not in found:
            raise proof.PackageNotFoundError(name)
        return found[name]

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(proof, "version", version)
    out = [dispatch.version_for(torch.zeros(1), operation) for operation in proof.OPERATIONS]
    assert out == ["lean"] * 3 and part in "".join(lines(capsys))
    assert dispatch.version_for(torch.zeros(1), "lc_fuse") == "lean" and not lines(capsys)


def test_the_lean_version_is_the_default_and_float64_has_no_kernels(monkeypatch, capsys):
    assert dispatch.version_for(torch.zeros(1, dtype=torch.float64), "lc_fuse") == "lean"
    monkeypatch.delenv("CFNSEG_OPS")
    for device in ("cpu", "cuda"):
        values = (
            torch.zeros(1)
            if device == "cpu"
            else torch._subclasses.FakeTensorMode().from_tensor(torch.zeros(1)).to("meta")
        )
        assert dispatch.version_for(values, "lc_fuse") == "lean"
    assert not lines(capsys)


def arguments():
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, 6, 8, requires_grad=True)]
    return (
        maps,
        torch.randn(1, 3, 2, 2, requires_grad=True),
        torch.randn(3, 2, 2, requires_grad=True),
        None,
        (6, 8),
    )


@pytest.mark.parametrize("failing", ["forward", "backward"])
def test_a_kernel_that_raises_after_its_proof_is_off(failing, monkeypatch, capsys):
    pytest.importorskip("triton")
    kernels, lean = (import_module(f"cfnseg.ops.lc_{name}") for name in ("triton", "lean"))
    calls = []

    def planted(*args):
        calls.append(failing)
        raise RuntimeError("planted.\nadvice")

    monkeypatch.setattr(proof, "holds", lambda *what: True)
    for name in ("forward", "backward"):
        monkeypatch.setattr(kernels, name, planted if name == failing else getattr(lean, name))
    maps, weight, *rest = arguments()
    for _ in range(2):
        grads = [
            torch.autograd.grad(f(maps, weight, *rest).square().sum(), (*maps, weight))
            for f in (lc_fuse, lc_fuse_reference)
        ]
        torch.testing.assert_close(*grads)
    assert calls == [failing]
    assert lines(capsys) == [
        f"cfnseg: Triton's lc_fuse failed on cpu: RuntimeError: planted. {LINE}"
    ]
    assert (
        dispatch.version_for(weight, "lc_fuse") == "lean"
        and dispatch.version_for(weight, "classes") == "triton"
    )


def test_no_memory_and_wrong_arguments_are_no_fault_of_a_kernel(monkeypatch, capsys):
    pytest.importorskip("triton")
    from cfnseg.ops import dense_argmax
    from cfnseg.ops import dense_triton as kernels

    def planted(*args):
        raise torch.OutOfMemoryError("planted")

    monkeypatch.setattr(proof, "holds", lambda *what: True)
    with pytest.raises(ValueError, match="do not cover an image of 40 x 50"):
        dense_argmax(torch.zeros(1, 2, 3, 3), (40, 50))
    monkeypatch.setattr(kernels, "argmax", planted)
    with pytest.raises(torch.OutOfMemoryError):
        dense_argmax(torch.zeros(1, 2, 3, 3), (3, 3))
    assert not dispatch._off and not lines(capsys)
