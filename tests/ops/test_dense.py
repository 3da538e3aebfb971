"""Cross-entropy, class maps and confusion from coarse logits, against torch on full-size ones."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnseg.ops import dense_argmax, dense_confusion, dense_cross_entropy, dense_scores, stride_of
from cfnseg.ops import dense_lean as lean
from cfnseg.ops.dense_reference import upsample_logits

STRIDES = st.sampled_from([1, 2, 4, 8, 16, 32])
SIZES = st.tuples(st.one_of(st.integers(1, 50), st.sampled_from([53, 89, 97])), st.integers(1, 50))


@pytest.fixture(params=[300, 1 << 18], autouse=True)
def _strip(request, monkeypatch):
    """Strips of a few cells, and one strip of all."""
    monkeypatch.setattr(lean, "STRIP", request.param)


def example(size, stride, classes=5, images=2, dtype=torch.float64, ignored=0.2, kind=torch.int64):
    """Logits at a stride and a target with ignored pixels."""
    torch.manual_seed(size[0] * 97 + size[1] * 7 + stride)
    logits = torch.randn(images, classes, -(-size[0] // stride), -(-size[1] // stride), dtype=dtype)
    target = torch.randint(0, classes, (images, *size))
    target[torch.rand(target.shape) < ignored] = 255
    return logits.requires_grad_(), target.to(kind)


def agree(ours, theirs, logits, weights=None, **tolerance):
    """Value and gradient are equal."""
    torch.testing.assert_close(ours, theirs, **tolerance)
    weights = torch.ones_like(theirs) if weights is None else weights
    found, expected = (torch.autograd.grad(x, logits, weights)[0] for x in (ours, theirs))
    torch.testing.assert_close(found, expected, **tolerance)


@settings(max_examples=12, deadline=None)
@given(
    SIZES,
    STRIDES,
    st.booleans(),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from(["mean", "sum", "none"]),
    st.sampled_from([torch.uint8, torch.int64, torch.int32]),
)
def test_cross_entropy_equals_torch_in_value_and_gradient(
    size, stride, weighted, smoothing, reduction, kind
):
    logits, target = example(size, stride, kind=kind)
    target[0, 0, 0] = 1
    weight = torch.rand(5, dtype=torch.float64) + 0.1 if weighted else None
    loss = dense_cross_entropy(
        logits, target, weight=weight, label_smoothing=smoothing, reduction=reduction
    )
    used = stride_of(logits, size)  # a small image fits several strides; the finest is taken
    full = F.interpolate(logits, scale_factor=used, mode="bilinear") if used > 1 else logits
    expected = F.cross_entropy(
        full[..., : size[0], : size[1]],
        target.long(),
        weight,
        ignore_index=255,
        reduction=reduction,
        label_smoothing=smoothing,
    )
    agree(loss, expected, logits, torch.rand_like(expected))


@settings(max_examples=12, deadline=None)
@given(SIZES, STRIDES, st.sampled_from([1, 2, 5, 150, 256, 257]))
def test_argmax_scores_and_confusion_equal_those_of_the_upsampled_logits(size, stride, classes):
    logits, target = example(size, stride, classes)
    full = upsample_logits(logits, size)
    found, top = dense_scores(logits, size)
    assert (
        found.dtype == (torch.uint8 if classes <= 256 else torch.int64)
        and top.dtype == torch.float32
    )
    assert torch.equal(found.long(), full.argmax(1)) and torch.equal(
        dense_argmax(logits, size), found
    )
    torch.testing.assert_close(top.double(), full.softmax(1).amax(1), rtol=1e-5, atol=1e-6)
    counted = target != 255
    by_hand = torch.zeros(classes, classes, dtype=torch.int64)
    by_hand.index_put_((target[counted], full.argmax(1)[counted]), torch.tensor(1), accumulate=True)
    assert torch.equal(dense_confusion(logits, target), by_hand)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(
    "dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)]
)
def test_cross_entropy_of_other_dtypes_is_computed_in_float32(dtype, bound, reduction):
    logits, target = example((64, 65), 4, 19, dtype=dtype)
    loss = dense_cross_entropy(logits, target, reduction=reduction)
    assert loss.dtype == torch.float32
    full = upsample_logits(logits.float(), (64, 65))
    agree(
        loss,
        F.cross_entropy(full, target, ignore_index=255, reduction=reduction),
        logits,
        rtol=bound,
        atol=1e-6,
    )
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(
            dense_cross_entropy(logits, target, reduction=reduction), loss, rtol=1e-6, atol=1e-6
        )


def test_gradcheck():
    logits, target = example((5, 3), 2, 3, images=1)
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    for reduction in ("mean", "none"):
        assert torch.autograd.gradcheck(
            lambda x, r=reduction: dense_cross_entropy(
                x, target, weight=weight, label_smoothing=0.1, reduction=r
            ),
            logits,
        )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_all_ignored_is_zero_with_a_zero_gradient(reduction):
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    loss = dense_cross_entropy(
        logits, torch.full((1, 32, 32), -100), ignore_index=-100, reduction=reduction
    )
    loss.sum().backward()
    assert not loss.any() and not logits.grad.any()


def test_an_ignored_id_that_the_dtype_cannot_hold():
    logits, target = example((9, 9), 4, kind=torch.uint8, ignored=0)
    torch.testing.assert_close(
        dense_cross_entropy(logits, target, ignore_index=-100),
        dense_cross_entropy(logits, target.long()),
    )


def test_large_logits_do_not_overflow():
    logits = (
        torch.tensor([1e4, -1e4, 0]).view(1, 3, 1, 1) * torch.ones(1, 3, 4, 4)
    ).requires_grad_()
    loss = dense_cross_entropy(logits, torch.ones(1, 16, 16, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 2e4 and torch.isfinite(logits.grad).all()
    classes, top = dense_scores(logits, (16, 16))
    assert not classes.any() and (top == 1).all()


@settings(max_examples=12, deadline=None)
@given(SIZES, STRIDES, st.sampled_from([2, 19, 150, 300]))
def test_the_first_of_equal_classes_wins(size, stride, classes):
    shape = 2, classes, -(-size[0] // stride), -(-size[1] // stride)
    logits = torch.randint(-1, 2, shape).float()  # so few values that float32 blends them exactly
    expected = upsample_logits(logits, size).argmax(1)
    assert torch.equal(dense_argmax(logits, size).long(), expected)
    assert torch.equal(dense_scores(logits, size)[0].long(), expected)
    assert not dense_argmax(torch.zeros_like(logits), size).any()


def test_non_contiguous_inputs():
    logits, target = example((24, 20), 4)
    strange = logits.detach().permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2).requires_grad_()
    turned = target.transpose(1, 2).contiguous().transpose(1, 2)
    for reduction in ("mean", "none"):
        ours, theirs = (
            dense_cross_entropy(strange, turned, reduction=reduction),
            dense_cross_entropy(logits, target, reduction=reduction),
        )
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(
            torch.autograd.grad(ours.sum(), strange)[0],
            torch.autograd.grad(theirs.sum(), logits)[0],
        )
    assert torch.equal(dense_argmax(strange, (24, 20)), dense_argmax(logits, (24, 20)))


def test_the_environment_forces_the_reference(monkeypatch):
    from cfnseg.ops import dense_reference as reference

    calls = []
    for module in (lean, reference):
        plain = module.argmax
        monkeypatch.setattr(
            module,
            "argmax",
            lambda *args, plain=plain, name=module.__name__: calls.append(name) or plain(*args),
        )
    logits, _ = example((24, 20), 4)
    for forced in ("", "reference"):
        monkeypatch.setenv("CFNSEG_OPS", forced)
        dense_argmax(logits, (24, 20))
    assert calls == ["cfnseg.ops.dense_lean", "cfnseg.ops.dense_reference"]
    monkeypatch.setenv("CFNSEG_OPS", "fast")
    with pytest.raises(ValueError, match="CFNSEG_OPS: expected .* got 'fast'"):
        dense_argmax(logits, (24, 20))


@pytest.mark.parametrize("size", [(32, 32), (375, 500), (33, 47), (97, 101), (360, 480)])
@pytest.mark.parametrize("stride", [4, 8, 32])
def test_stride_of_finds_the_networks_stride(size, stride):
    assert (
        stride_of(torch.zeros(1, 2, -(-size[0] // stride), -(-size[1] // stride)), size) == stride
    )


def test_stride_of_names_both_sizes():
    with pytest.raises(ValueError, match=r"^logits: 8 x 9 .* 32 x 32"):
        stride_of(torch.zeros(1, 2, 8, 9), (32, 32))


@pytest.mark.parametrize(
    "name, change",
    [
        ("logits", lambda x, t: dense_cross_entropy(x[0], t)),
        ("logits", lambda x, t: dense_cross_entropy(x.long(), t)),
        ("logits", lambda x, t: dense_argmax(x[0], (24, 20))),
        ("logits", lambda x, t: dense_scores(x, (24, 200))),
        ("target", lambda x, t: dense_cross_entropy(x, t.float())),
        ("target", lambda x, t: dense_cross_entropy(x, t[:1])),
        ("target", lambda x, t: dense_cross_entropy(x, t[0])),
        ("target", lambda x, t: dense_cross_entropy(x, t + 3)),
        ("target", lambda x, t: dense_confusion(x, t + 3)),
        ("target", lambda x, t: dense_cross_entropy(x, t - 1, reduction="none")),
        ("weight", lambda x, t: dense_cross_entropy(x, t, weight=torch.ones(4))),
        ("reduction", lambda x, t: dense_cross_entropy(x, t, reduction="avg")),
        ("label_smoothing", lambda x, t: dense_cross_entropy(x, t, label_smoothing=2)),
    ],
)
def test_wrong_arguments_are_named(name, change):
    with pytest.raises(ValueError, match=f"^{name}: "):
        change(*example((24, 20), 4, ignored=0))
