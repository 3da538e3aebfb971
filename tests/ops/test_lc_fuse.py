"""The one-pass fusion against its definition: values, gradients, odd shapes, and its errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnseg.ops import lc_fuse, lc_fuse_reference
from cfnseg.ops import lc_lean as LEAN
from cfnseg.ops.lc_lean import Axis
from cfnseg.ops.lc_reference import hat, places

GRIDS = [(2, 3), (3, 1), (1, 1)]  # each has its own backward on a CPU
SIDES = st.one_of(st.integers(1, 14), st.sampled_from([17, 23]))


@pytest.fixture(params=[1, 200, 1 << 18, "image", "images"], autouse=True)
def _strip(request, monkeypatch):
    """Strips of one row, some rows and all rows; the CPU's code by image and in one batch."""
    if isinstance(request.param, str):
        monkeypatch.setattr(LEAN, "_in_strips", lambda device: False)
        monkeypatch.setattr(LEAN.lc_batched, "CHUNK", 1 if request.param == "image" else 1 << 25)
    else:
        monkeypatch.setattr(LEAN, "STRIP", request.param)


def inputs(n=2, k=3, grid=(2, 3), size=(6, 7), factors=(1, 2, 4), dtype=torch.float64):
    torch.manual_seed(0)
    branches = [
        torch.randn(n, k, -(-size[0] // f), -(-size[1] // f), dtype=dtype, requires_grad=True)
        for f in factors
    ]
    weight = torch.randn(len(factors), k, *grid, dtype=dtype, requires_grad=True)
    bias = torch.randn(k, *grid, dtype=dtype, requires_grad=True)
    region = torch.tensor([[0.1, -0.2, 0.7, 0.5], [0.3, 0.4, 1.3, 1.0]], dtype=dtype)[:n]
    return branches, weight, bias, region, size


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("relu", [True, False])
def test_gradcheck(relu, grid):
    branches, weight, bias, region, size = inputs(k=2, grid=grid, size=(4, 5), factors=(1, 2, 5))
    assert torch.autograd.gradcheck(
        lambda w, b, *x: lc_fuse(x, w, b, region, size, relu), (weight, bias, *branches)
    )


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("relu", [True, False])
def test_the_gradient_that_comes_in_is_left_alone(relu, grid):
    """Autograd may share that tensor, as after a sum."""
    branches, weight, bias, _, size = inputs(grid=grid)
    grad = torch.randn(2, 3, *size, dtype=torch.float64).contiguous(
        memory_format=torch.channels_last
    )
    before = grad.clone()
    torch.autograd.grad(
        lc_fuse(branches, weight, bias, None, size, relu), (weight, *branches), grad
    )
    assert torch.equal(grad, before)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 5),
    st.tuples(st.integers(1, 9), st.one_of(st.just(1), st.integers(1, 9))),
    st.tuples(SIDES, SIDES),
    st.lists(st.sampled_from([1, 2, 3, 8, 32]), min_size=1, max_size=3),
    st.sampled_from(["own", "shared", "whole", "full grid"]),
)
def test_equals_the_reference_in_value_and_gradient(n, k, grid, size, factors, kind):
    branches, weight, bias, region, size = inputs(
        n, k, size if kind == "full grid" else grid, size, factors
    )
    region = {"own": region, "shared": region[:1]}.get(kind)
    results = []
    for function in (lc_fuse, lc_fuse_reference):
        for leaf in (*branches, weight, bias):
            leaf.grad = None
        out = function(branches, weight, bias, region, size)
        (out * torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape)).sum().backward()
        results.append([out.detach(), *(leaf.grad for leaf in (*branches, weight, bias))])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_branches_are_summed_in_float32(dtype, grid):
    branches, weight, bias, region, size = inputs(
        grid=grid, factors=(1, 2, 4, 7), dtype=torch.float32
    )
    halves = [b.detach().to(dtype).requires_grad_() for b in branches]
    with torch.autocast("cpu", torch.bfloat16):
        out = lc_fuse(halves, weight, bias, region, size)
    exact = [b.detach().float().requires_grad_() for b in halves]
    expected = lc_fuse_reference(exact, weight, bias, region, size)
    assert out.dtype == dtype and out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected.to(dtype))
    factor = torch.randn_like(expected).to(dtype)
    ours, theirs = (
        torch.autograd.grad(x, (*leaves, weight, bias), factor.to(x))
        for x, leaves in ((out, halves), (expected, exact))
    )
    for found, wanted in zip(ours, theirs):
        torch.testing.assert_close(
            found, wanted.to(found.dtype), rtol=1e-2 if found.dtype == dtype else 1e-5, atol=1e-4
        )


def test_a_model_in_16_bits():
    branches, weight, bias, region, size = inputs(dtype=torch.bfloat16)
    out = lc_fuse(branches, weight, bias, region, size)
    expected = lc_fuse_reference(
        [b.float() for b in branches], weight.float(), bias.float(), region, size
    )
    torch.testing.assert_close(out, expected.bfloat16())
    assert torch.autograd.grad(out.sum(), weight)[0].dtype == torch.bfloat16


def test_non_contiguous_branches():
    branches, weight, bias, region, size = inputs()
    turned = [b.transpose(2, 3).contiguous().transpose(2, 3) for b in branches]
    torch.testing.assert_close(
        lc_fuse(turned, weight, bias, region, size), lc_fuse(branches, weight, bias, region, size)
    )


def test_the_environment_forces_the_reference(monkeypatch):
    monkeypatch.setenv("CFNSEG_OPS", "reference")
    branches, weight, bias, region, size = inputs()
    out = lc_fuse(branches, weight, bias, region, size)
    assert "lc_fuse" not in type(out.grad_fn).__name__  # no operation of ours
    assert torch.equal(out, lc_fuse_reference(branches, weight, bias, region, size))


@pytest.mark.parametrize(
    "name, change",
    [
        ("weight", lambda a: (a[0][:2], *a[1:])),
        ("weight", lambda a: ([], *a[1:])),
        ("branches", lambda a: ([b[:, :2] for b in a[0]], *a[1:])),
        ("branches", lambda a: ([b[0] for b in a[0]], *a[1:])),
        ("branches", lambda a: ([a[0][0].float(), *a[0][1:]], *a[1:])),
        ("branches", lambda a: ([b.long() for b in a[0]], *a[1:])),
        ("bias", lambda a: (*a[:2], a[2][:2], *a[3:])),
        ("region", lambda a: (*a[:3], a[3][:, :3], a[4])),
        ("size", lambda a: (*a[:4], (0, 4))),
    ],
)
def test_wrong_arguments_are_named(name, change):
    with pytest.raises(ValueError, match=f"^{name}: "):
        lc_fuse(*change(inputs()))


def test_hat_rows_sum_to_one_and_hit_the_knots():
    rows = hat(torch.tensor([0.0, -0.5]), torch.tensor([1.0, 2.0]), 6, 6)
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 6))
    torch.testing.assert_close(rows[0], torch.eye(6))


@given(st.floats(-1, 1.5), st.floats(-1, 2), st.integers(1, 9), st.integers(1, 7))
def test_axis_reads_as_hat_and_folds_as_its_transpose(start, stop, cells, knots):
    ends = torch.tensor([[start], [stop]], dtype=torch.float64)
    axis, matrix = Axis(places(*ends, cells, knots)[0], knots), hat(*ends, cells, knots)[0]
    values, grad = (
        torch.randn(2, knots, 3, dtype=torch.float64),
        torch.randn(2, cells, 3, dtype=torch.float64),
    )
    torch.testing.assert_close(axis.read(values).expand(-1, cells, -1), matrix @ values)
    torch.testing.assert_close(axis.fold(grad), matrix.T @ grad)
    band = axis.band(slice(0, cells))
    torch.testing.assert_close(
        axis.matrix(slice(0, cells), band) @ values[:, band], matrix @ values
    )
