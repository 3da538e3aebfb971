"""The Triton kernels against the references: on a GPU, else in Triton's interpreter."""

import os
from pathlib import Path

import pytest
import torch

from cfnseg.ops import (
    dense_argmax,
    dense_cross_entropy,
    dense_scores,
    dispatch,
    lc_fuse,
    lc_fuse_reference,
)
from cfnseg.ops.dense_reference import upsample_logits
from tests.conftest import REPO, run_tool

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
kernels = pytest.mark.skipif(
    DEVICE == "cpu" and not INTERPRETED, reason="run by test_in_the_interpreter"
)


@pytest.mark.skipif(DEVICE == "cuda" or INTERPRETED, reason="the tests below run here")
def test_in_the_interpreter():
    # TRITON_INTERPRET must be set before the import of triton, and would break torch.compile here
    done = run_tool(
        "-m",
        "pytest",
        "-n",
        0,
        "-x",
        Path(__file__).relative_to(REPO),
        env={"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "passed" in done.stdout


@pytest.fixture(autouse=True)
def _triton(monkeypatch):
    monkeypatch.setattr(dispatch, "trusted", True)
    monkeypatch.setenv("CFNSEG_OPS", "triton")


def close(ours, theirs, dtype=torch.float32):
    bound = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    for found, expected in zip(ours, theirs):
        torch.testing.assert_close(
            found.float(),
            expected.float(),
            rtol=bound,
            atol=bound * max(1, float(expected.abs().max())),
        )


@kernels
@pytest.mark.parametrize(
    "size, factors, grid, width, region, relu, dtype",
    [
        ((11, 7), (1, 2, 4), (2, 3), 3, "own", True, torch.float32),
        ((8, 8), (1, 2, 4, 8), (1, 1), 4, None, True, torch.float32),
        ((5, 6), (1, 2), (5, 6), 5, None, False, torch.float32),
        ((5, 6), (1, 3), (7, 6), 2, "own", True, torch.float32),
        ((1, 1), (1, 32), (2, 2), 1, "shared", False, torch.float32),
        ((1, 13), (2, 1), (3, 1), 2, "turned", True, torch.float32),
        ((9, 4), (1, 2), (2, 3), 3, "own", True, torch.bfloat16),
        ((9, 4), (1, 2), (2, 3), 130, "shared", True, torch.float16),
    ],
)
def test_fusion_in_value_and_gradient(size, factors, grid, width, region, relu, dtype, monkeypatch):
    from cfnseg.ops import lc_triton as kernels

    ran = []
    for name in ("forward", "backward"):
        plain = getattr(kernels, name)
        monkeypatch.setattr(
            kernels, name, lambda *args, plain=plain, name=name: ran.append(name) or plain(*args)
        )
    torch.manual_seed(0)
    branches = [
        torch.randn(2, width, -(-size[0] // f), -(-size[1] // f), device=DEVICE)
        .to(dtype)
        .requires_grad_()
        for f in factors
    ]
    weight = torch.randn(len(factors), width, *grid, device=DEVICE, requires_grad=True)
    bias = torch.randn(width, *grid, device=DEVICE, requires_grad=True)
    places = torch.tensor([[0.1, -0.2, 0.7, 0.5], [0.3, 0.4, 1.3, 1.0]], device=DEVICE)
    region = {"own": places, "shared": places[:1], "turned": places[:, [2, 3, 0, 1]]}.get(region)
    exact = [b.detach().float().requires_grad_() for b in branches]
    out, expected = (
        f(x, weight, bias, region, size, relu)
        for f, x in ((lc_fuse, branches), (lc_fuse_reference, exact))
    )
    assert out.dtype == dtype
    factor = torch.randn(out.shape, device=DEVICE).to(dtype)
    factor[expected.abs() < 0.05] = 0  # where rounding may decide what ReLU lets through
    ours, theirs = (
        torch.autograd.grad(x, (*leaves, weight, bias), factor.to(x.dtype))
        for x, leaves in ((out, branches), (expected, exact))
    )
    assert ran == ["forward", "backward"]
    close((out, *ours), (expected, *theirs), dtype)


@kernels
@pytest.mark.parametrize(
    "size, stride, classes, smoothing, weighted, kind, dtype",
    [
        ((13, 10), 4, 5, 0.0, False, torch.uint8, torch.float32),
        ((13, 10), 4, 3, 0.1, True, torch.int64, torch.float32),
        ((5, 6), 1, 3, 0.1, False, torch.int64, torch.float32),
        ((9, 70), 32, 2, 0.0, True, torch.uint8, torch.float32),
        ((1, 1), 1, 4, 0.0, False, torch.uint8, torch.float32),
        ((7, 5), 2, 3, 1.0, True, torch.int32, torch.float32),
        ((16, 17), 8, 3, 0.0, False, torch.uint8, torch.bfloat16),
        ((16, 17), 4, 3, 0.0, False, torch.uint8, torch.float16),
    ],
)
def test_cross_entropy_in_value_and_gradient(
    size, stride, classes, smoothing, weighted, kind, dtype
):
    torch.manual_seed(0)
    logits = torch.randn(
        2, classes, -(-size[0] // stride), -(-size[1] // stride), device=DEVICE
    ).to(dtype)
    logits = logits.contiguous(memory_format=torch.channels_last).requires_grad_()
    target = torch.randint(0, classes, (2, *size), device=DEVICE).to(kind)
    target[:, : size[0] // 3] = 99
    weight = torch.rand(classes, device=DEVICE) + 0.1 if weighted else None
    full = upsample_logits(logits.float(), size)
    for reduction in ("mean", "sum", "none"):
        settings = {"ignore_index": 99, "label_smoothing": smoothing, "reduction": reduction}
        loss = dense_cross_entropy(logits, target, weight=weight, **settings)
        expected = torch.nn.functional.cross_entropy(full, target.long(), weight, **settings)
        factor = torch.rand_like(expected)
        ours, theirs = (
            torch.autograd.grad(x, logits, factor, retain_graph=True) for x in (loss, expected)
        )
        close((loss, *ours), (expected, *theirs), dtype)


@kernels
@pytest.mark.parametrize(
    "size, stride, classes", [((13, 10), 4, 5), ((5, 3), 1, 2), ((9, 40), 32, 3), ((3, 3), 2, 257)]
)
def test_classes_and_scores(size, stride, classes):
    torch.manual_seed(0)
    logits = torch.randn(2, classes, -(-size[0] // stride), -(-size[1] // stride), device=DEVICE)
    full = upsample_logits(logits, size)
    found, top = dense_scores(logits, size)
    assert torch.equal(found.long(), full.argmax(1)) and torch.equal(
        dense_argmax(logits, size), found
    )
    close([top], [full.softmax(1).amax(1)])
    assert not dense_argmax(torch.zeros_like(logits), size).any()  # the first of equals


@kernels
def test_nothing_counted_large_logits_and_ids_that_are_no_class():
    logits = (
        torch.tensor([1e4, -1e4, 0], device=DEVICE).view(1, 3, 1, 1)
        * torch.ones(1, 3, 2, 2, device=DEVICE)
    ).requires_grad_()
    target = torch.full((1, 8, 8), 255, dtype=torch.uint8, device=DEVICE)
    loss = dense_cross_entropy(logits, target)
    assert loss.item() == 0 and not torch.autograd.grad(loss, logits)[0].any()
    loss = dense_cross_entropy(logits, target * 0 + 1)
    assert loss.item() == 2e4 and torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()
    each = dense_cross_entropy(
        logits, torch.where(torch.arange(8, device=DEVICE) == 3, 3, target), reduction="none"
    )
    assert each[0, :, 3].isnan().all() and each.isnan().sum() == 8
