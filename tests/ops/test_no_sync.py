"""No CUDA path waits for the device: checked on fake CUDA tensors, which have no values."""

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cfnseg.ops import dense, dense_ops, lc_lean
from cfnseg.ops import dense_lean as lean
from cfnseg.ops.lc_reference import whole


class NoCopies(TorchDispatchMode):
    """Refuses copies between host and device; a fake tensor already refuses to be read."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        devices = {
            x.device.type
            for x in tree_leaves((args, kwargs, result))
            if isinstance(x, torch.Tensor) and x.ndim
        }
        assert len(devices) < 2, f"{func} copies between {devices}"
        return result


@pytest.fixture
def fake():
    with FakeTensorMode(), NoCopies():
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grid", [(1, 1), (6, 8)])
@pytest.mark.parametrize("own", [True, False])
def test_fusion(fake, dtype, grid, own):
    maps = [torch.randn(3, 16, 32 >> s, 24 >> s, device="cuda", dtype=dtype) for s in range(4)]
    weight, bias = torch.randn(4, 16, *grid, device="cuda"), torch.randn(16, *grid, device="cuda")
    region = torch.rand(3, 4, device="cuda") if own else whole(weight.device, weight.dtype)
    out = lc_lean.forward(maps, weight, bias, region, (32, 24), True)
    assert out.shape == (3, 16, 32, 24) and out.dtype == dtype and out.device.type == "cuda"
    grads = lc_lean.backward(torch.randn_like(out), out, maps, weight, bias, region, True)
    assert [g.shape for g in grads] == [x.shape for x in (weight, bias, *maps)]


@pytest.mark.parametrize("stride", [1, 4, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_classes(fake, stride, dtype):
    logits = torch.randn(2, 19, 16, 12, device="cuda", dtype=dtype)
    size = (16 * stride - stride // 2, 12 * stride)
    target = torch.zeros(2, *size, dtype=torch.uint8, device="cuda")
    weight = torch.rand(19, device="cuda")
    total, amount, grad = lean.sums(logits, target, 255, weight, 0.1, True)
    assert total.shape == amount.shape == () and grad.shape == logits.shape
    each = lean.each(logits, target, 255, None, 0.0)
    assert (
        each.shape == target.shape
        and lean.each_backward(each, logits, target, 255, None, 0.0).shape == logits.shape
    )
    assert lean.argmax(logits, size).shape == target.shape
    assert all(x.shape == target.shape for x in lean.scores(logits, size))
    assert dense_ops.count(logits, target, 255).shape == (19, 19)


def test_this_test_sees_what_it_forbids(fake):
    values = torch.rand(3, device="cuda")
    for wait in (lambda: bool(values.any()), lambda: values[values > 0], lambda: values.bincount()):
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            wait()
    for copy in (lambda: torch.tensor([1.0, 2.0], device="cuda"), lambda: values.cpu()):
        with pytest.raises(AssertionError, match="copies between"):
            copy()


def test_ids_that_are_no_class_where_nobody_looks(monkeypatch):
    """As on CUDA: the host checks nothing, the pixel's loss is nan, every count is -1."""
    monkeypatch.setattr(lean, "_may_look", lambda device: False)
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 16, 16))
    target[:, 0] = 255
    expected = torch.zeros(3, 3, dtype=torch.int64)
    truth, found = target[target != 255], dense.dense_argmax(logits, (16, 16))[target != 255].long()
    expected.index_put_((truth, found), torch.tensor(1), accumulate=True)
    assert torch.equal(dense.dense_confusion(logits, target), expected)
    target[1, 7, 7] = 3
    assert (dense.dense_confusion(logits, target) == -1).all()
    each = lean.each(logits, target, 255, None, 0.0)
    assert each[1, 7, 7].isnan() and each.isnan().sum() == 1
