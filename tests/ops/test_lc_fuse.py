"""The one-pass fusion against its definition: values, gradients, odd shapes, and its errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnseg.ops import lc_fuse, lc_fuse_reference
from cfnseg.ops.lc_fuse import hat


def inputs(n=2, k=3, grid=(2, 3), size=(6, 7), factors=(1, 2, 4), dtype=torch.float64):
    torch.manual_seed(0)
    branches = [torch.randn(n, k, -(-size[0] // f), -(-size[1] // f), dtype=dtype, requires_grad=True) for f in factors]
    weight = torch.randn(len(factors), k, *grid, dtype=dtype, requires_grad=True)
    bias = torch.randn(k, *grid, dtype=dtype, requires_grad=True)
    region = torch.tensor([[0.1, -0.2, 0.7, 0.5], [0.3, 0.4, 1.3, 1.0]], dtype=dtype)[:n]
    return branches, weight, bias, region, size


@pytest.mark.parametrize("relu", [True, False])
def test_gradcheck(relu):
    branches, weight, bias, region, size = inputs()
    assert torch.autograd.gradcheck(lambda w, b, *x: lc_fuse(x, w, b, region, size, relu), (weight, bias, *branches))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 2), st.integers(1, 5), st.tuples(st.integers(1, 9), st.integers(1, 9)),
       st.tuples(st.integers(1, 13), st.integers(1, 13)), st.booleans())
def test_equals_the_reference_in_value_and_gradient(n, k, grid, size, whole):
    branches, weight, bias, region, size = inputs(n, k, grid, size)
    region = None if whole else region
    results = []
    for function in (lc_fuse, lc_fuse_reference):
        for leaf in (*branches, weight, bias):
            leaf.grad = None
        out = function(branches, weight, bias, region, size)
        (out * torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape)).sum().backward()
        results.append([out.detach(), *(leaf.grad for leaf in (*branches, weight, bias))])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)


def test_bfloat16_branches_are_summed_in_float32():
    branches, weight, bias, region, size = inputs(dtype=torch.float32)
    out = lc_fuse([b.bfloat16() for b in branches], weight, bias, region, size)
    expected = lc_fuse_reference([b.bfloat16().float() for b in branches], weight, bias, region, size)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=2e-2)


def test_non_contiguous_branches():
    branches, weight, bias, region, size = inputs()
    turned = [b.transpose(2, 3).contiguous().transpose(2, 3) for b in branches]
    torch.testing.assert_close(lc_fuse(turned, weight, bias, region, size), lc_fuse(branches, weight, bias, region, size))


@pytest.mark.parametrize("name, change", [("branches", lambda a: (a[0][:2], *a[1:])), ("bias", lambda a: (*a[:2], a[2][:2], *a[3:])),
                                          ("region", lambda a: (*a[:3], a[3][:, :3], a[4]))])
def test_wrong_shapes_name_the_argument(name, change):
    with pytest.raises(ValueError, match=f"^{name}"):
        lc_fuse(*change(inputs()))


def test_hat_rows_sum_to_one_and_hit_the_knots():
    rows = hat(torch.tensor([0.0, -0.5]), torch.tensor([1.0, 2.0]), 6, 6)
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 6))
    torch.testing.assert_close(rows[0], torch.eye(6))
