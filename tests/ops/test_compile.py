"""The Triton kernels compile for absent GPUs, in child processes: a compiler may abort."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cfnseg.ops.dispatch import OLDEST
from tests.conftest import REPO

pytest.importorskip("triton")
if sys.platform != "linux":
    pytest.skip("Triton is for Linux", allow_module_level=True)
FLAGS = {
    "loss_kernel": {"EACH", "GRADIENT"},
    "classes_kernel": {"SCORES"},
    "fuse_kernel": {"FIRST", "RELU"},
    "scale_kernel": {"RELU"},
    "fold_kernel": {"RELU"},
}


def compiled(tmp_path, capsys, which="covering", python=sys.executable, targets="80,90,100"):
    """Compile with ``python``; a row per variant. A failure names the variant."""
    parts = min(2, os.cpu_count() or 1)
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env |= {
        "TRITON_CACHE_DIR": str(tmp_path / "triton"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPO),
    }
    children = [
        subprocess.Popen(
            [python, "-m", "tests.ops.variants", which, str(part), str(parts), targets],
            cwd=REPO,
            env=env,
            stdout=subprocess.PIPE,
            stderr=(tmp_path / f"errors{part}").open("w"),
            text=True,
        )
        for part in range(parts)
    ]
    lines, results = [child.communicate()[0].splitlines() for child in children], []
    for part, (child, found) in enumerate(zip(children, lines)):
        errors = (tmp_path / f"errors{part}").read_text()[-3000:]
        assert child.returncode == 0, (
            f"exit code {child.returncode} while compiling {found[-1:]}\n{errors}"
        )
        results += [json.loads(line) for line in found if "registers" in line]
    assert results and len(results) == results[0]["all"]
    spills = max(r["spills"] for r in results)
    with capsys.disabled():
        print(
            f"\n{len(results)} of {results[0]['of']} variants compiled by "
            f"Triton {results[0]['triton']} for sm_{targets}: "
            f"at most {max(r['registers'] for r in results)} registers, {spills} bytes spilled",
            file=sys.stderr,
        )
    assert spills <= 64
    return results


@pytest.mark.timeout(900)  # a minute on an idle core
def test_compile_every_flag_and_every_pair_of_them(tmp_path, capsys):
    compiled(tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_compile_every_variant(tmp_path, capsys):
    compiled(tmp_path, capsys, "every")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_compile_with_the_oldest_triton(tmp_path, capsys):
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    done = subprocess.run(
        [
            home / "bin/python",
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            f"triton=={OLDEST['triton']}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"pip cannot install it: {done.stderr[-200:]}")
    own = next(home.glob("lib/python*/site-packages"))
    (own / "rest.pth").write_text(
        sysconfig.get_path("purelib")
    )  # its own packages come first, then this environment's
    results = compiled(tmp_path, capsys, python=home / "bin/python")
    assert Requirement(f"triton=={OLDEST['triton']}").specifier.contains(results[0]["triton"])


def test_no_kernel_and_no_flag_is_left_out_of_what_is_compiled():
    from cfnseg.ops import dense_kernels, lc_kernels
    from tests.ops.variants import FLOATS, JITFunction, record

    seen = {}
    for variant in record():
        for name, value in variant.factors.items():
            seen.setdefault(variant.kernel, {}).setdefault(name, set()).add(value)
    jitted = (
        f
        for module in (dense_kernels, lc_kernels)
        for f in vars(module).values()
        if isinstance(f, JITFunction)
    )
    launched = {f for f in jitted if f.do_not_specialize}
    assert launched == set(seen)
    for kernel, factors in seen.items():
        flags = {
            name
            for name, values in factors.items()
            if values & {True, False} and all(isinstance(v, bool) for v in values)
        }
        assert flags == FLAGS[kernel.__name__] and all(
            factors[flag] == {True, False} for flag in flags
        )
        values = "logits" if "logits" in factors else "result"
        assert factors[values] == {str(dtype) for dtype in FLOATS}
        assert {p.name for p in kernel.params if p.is_constexpr} <= set(factors)


def test_pyproject_and_dispatch_state_the_same_oldest_versions():
    project = tomllib.loads((Path(REPO) / "pyproject.toml").read_text())["project"]
    wanted = [
        Requirement(r)
        for r in (*project["dependencies"], *project["optional-dependencies"]["triton"])
    ]
    assert {r.name: str(r.specifier) for r in wanted if r.name in OLDEST} == {
        name: f">={v}" for name, v in OLDEST.items()
    }
