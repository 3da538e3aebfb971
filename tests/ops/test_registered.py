"""Registered operations: schemas, fake results, traced gradients, second derivatives."""

import pytest
import torch

from cfnseg.ops import (
    dense_argmax,
    dense_confusion,
    dense_cross_entropy,
    dense_cross_entropy_sums,
    dense_scores,
    lc_fuse,
    lc_fuse_reference,
)

OPS = torch.ops.cfnseg
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def _afresh():
    torch._dynamo.reset()  # else torch's recompilation limit is reached


def check(operation, *args, traced=True):
    """torch's own checks; ``traced`` compares sums of gradients, for which 16 bits are too few."""
    kinds = (
        "test_schema",
        "test_autograd_registration",
        "test_faketensor",
        *["test_aot_dispatch_dynamic"] * traced,
    )
    torch.library.opcheck(operation, args, test_utils=kinds)


def fusion(dtype, size=(7, 5), images=2, factors=(1, 2, 4)):
    torch.manual_seed(0)
    branches = [
        torch.randn(images, 3, -(-size[0] // f), -(-size[1] // f), dtype=dtype) for f in factors
    ]
    branches = [b.contiguous(memory_format=torch.channels_last).requires_grad_() for b in branches]
    weight, bias = (
        torch.randn(len(factors), 3, 2, 3, requires_grad=True),
        torch.randn(3, 2, 3, requires_grad=True),
    )
    return (
        branches,
        weight,
        bias,
        torch.tensor([[0.1, -0.2, 0.7, 0.5], [0.3, 0.4, 1.3, 1.0]])[:images],
    )


def scores(dtype, size=(13, 10), stride=4, classes=5):
    torch.manual_seed(0)
    logits = (
        torch.randn(2, classes, -(-size[0] // stride), -(-size[1] // stride))
        .to(dtype)
        .requires_grad_()
    )
    target = torch.randint(0, min(classes, 255), (2, *size), dtype=torch.uint8)
    target[:, :3] = 255
    return logits, target


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "size, factors", [((7, 5), (1, 2, 4)), ((1, 1), (1, 1)), ((4, 9), (2, 1, 32))]
)
def test_fusion(dtype, size, factors):
    branches, weight, bias, region = fusion(dtype, size, factors=factors)
    for relu in (True, False):
        check(
            OPS.lc_fuse.default,
            branches,
            weight,
            bias,
            region,
            size,
            relu,
            traced=dtype == torch.float32,
        )
    result = OPS.lc_fuse(branches, weight, bias, region, size, True).detach()
    plain = [x.detach() for x in (weight, bias, region)]
    check(
        OPS.lc_fuse_backward.default,
        torch.randn_like(result),
        result,
        [b.detach() for b in branches],
        *plain,
        True,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size, stride", [((13, 10), 4), ((5, 6), 1), ((9, 40), 32)])
def test_dense(dtype, size, stride):
    logits, target = scores(dtype, size, stride)
    for weight, smoothing in ((None, 0.0), (torch.rand(5), 0.1)):
        check(
            OPS.dense_cross_entropy.default,
            logits,
            target,
            255,
            weight,
            smoothing,
            traced=dtype == torch.float32,
        )
        check(
            OPS.dense_cross_entropy_sums.default,
            logits,
            target,
            255,
            weight,
            smoothing,
            True,
            traced=dtype == torch.float32,
        )
        check(
            OPS.dense_cross_entropy_sums.default,
            logits.detach(),
            target,
            255,
            weight,
            smoothing,
            False,
        )
        check(
            OPS.dense_cross_entropy_backward.default,
            torch.rand(2, *size),
            logits.detach(),
            target,
            255,
            weight,
            smoothing,
        )
    check(OPS.dense_argmax.default, logits.detach(), size)
    check(OPS.dense_scores.default, logits.detach(), size)
    check(OPS.dense_confusion.default, logits.detach(), target, 255)


def test_more_than_256_classes_are_int64_in_fake_results_too():
    logits, target = scores(torch.float32, classes=257)
    check(OPS.dense_argmax.default, logits.detach(), (13, 10))
    check(OPS.dense_scores.default, logits.detach(), (13, 10))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_traced_loss_has_the_same_value_and_gradient(dtype, reduction):
    def loss(logits, target, weight):
        return dense_cross_entropy(
            logits, target, weight=weight, label_smoothing=0.1, reduction=reduction
        )

    traced = torch.compile(loss, backend="aot_eager", fullgraph=True, dynamic=True)
    weight = torch.rand(5) + 0.1
    for size in ((13, 10), (9, 15)):
        logits, target = scores(dtype, size)
        ours, theirs = traced(logits, target, weight), loss(logits, target, weight)
        torch.testing.assert_close(ours, theirs)
        factor = torch.rand_like(theirs)
        torch.testing.assert_close(
            *(torch.autograd.grad(x, logits, factor)[0] for x in (ours, theirs))
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_traced_fusion_has_the_same_value_layout_and_gradients(dtype):
    def fuse(weight, bias, region, *branches):
        return lc_fuse(branches, weight, bias, region, tuple(branches[0].shape[2:])) * 2

    traced = torch.compile(fuse, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in ((7, 5), (4, 9)):
        branches, weight, bias, region = fusion(dtype, size)
        ours, theirs = (
            traced(weight, bias, region, *branches),
            fuse(weight, bias, region, *branches),
        )
        assert ours.stride() == theirs.stride() and ours.is_contiguous(
            memory_format=torch.channels_last
        )
        torch.testing.assert_close(ours, theirs)
        factor = torch.randn_like(theirs)
        found, expected = (
            torch.autograd.grad(x, (weight, bias, *branches), factor) for x in (ours, theirs)
        )
        torch.testing.assert_close(found, expected)


def test_a_traced_program_raises_for_an_id_that_is_no_class():
    traced = torch.compile(dense_cross_entropy, backend="aot_eager", fullgraph=True)
    logits, target = scores(torch.float32)
    with pytest.raises(ValueError, match="^target: expected ids 0 to 4 or ignore_index, got 9"):
        traced(logits, target.fill_(9))


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES])
@pytest.mark.parametrize("forced", ["lean", "reference"])
def test_the_counted_weight(dtype, forced, monkeypatch):
    monkeypatch.setenv("CFNSEG_OPS", forced)
    logits, target = scores(dtype)
    weight = torch.tensor([0.5, 1, 2, 4, 8])
    counted = target[target != 255].long()
    for given, amount in ((None, float(len(counted))), (weight, float(weight[counted].sum()))):
        loss, found = dense_cross_entropy_sums(logits, target, weight=given, label_smoothing=0.1)
        assert loss.shape == found.shape == () and loss.dtype == found.dtype == torch.promote_types(
            dtype, torch.float32
        )
        assert found.item() == amount and loss.requires_grad and not found.requires_grad
        total = dense_cross_entropy(
            logits, target, weight=given, label_smoothing=0.1, reduction="sum"
        )
        torch.testing.assert_close(loss, total)
    loss, found = dense_cross_entropy_sums(logits, torch.full_like(target, 255))
    assert loss == found == 0 and not torch.autograd.grad(loss, logits)[0].any()


def test_a_second_derivative_is_refused():
    branches, weight, bias, region = fusion(torch.float32)
    logits, target = scores(torch.float32)
    for value, leaf in (
        (lc_fuse(branches, weight, bias, region, (7, 5)), weight),
        *((dense_cross_entropy(logits, target, reduction=r), logits) for r in ("mean", "none")),
    ):
        (first,) = torch.autograd.grad(value.square().sum(), leaf, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            first.sum().backward()


def test_sums_are_in_float32_under_autocast():
    branches, weight, bias, region = fusion(torch.float32)
    logits, target = scores(torch.float32)
    plain = (
        lc_fuse(branches, weight, bias, region, (7, 5)),
        dense_cross_entropy(logits, target),
        dense_scores(logits, (13, 10))[1],
    )
    with torch.autocast("cpu", torch.bfloat16):
        cast = (
            lc_fuse(branches, weight, bias, region, (7, 5)),
            dense_cross_entropy(logits, target),
            dense_scores(logits, (13, 10))[1],
        )
    torch.testing.assert_close(cast, plain, rtol=0, atol=0)


def test_an_export_holds_torchs_operations_only():
    class Net(torch.nn.Module):
        def forward(self, weight, bias, region, one, two):
            fused = lc_fuse([one, two], weight, bias, region, tuple(one.shape[2:]))
            return fused, dense_argmax(fused, (4 * one.shape[2], 4 * one.shape[3]))

    branches, weight, bias, region = fusion(torch.float32, (8, 6), factors=(1, 2))
    with torch.no_grad():
        program = torch.export.export(Net(), (weight, bias, region, *branches))
        assert not [n for n in program.graph.nodes if "cfnseg" in str(n.target)]
        fused, classes = program.module()(weight, bias, region, *branches)
        expected = lc_fuse_reference(branches, weight, bias, region, (8, 6))
    torch.testing.assert_close(fused, expected)
    assert torch.equal(classes, dense_argmax(expected, (32, 24)))


def test_confusion_is_counted_by_the_registered_operation():
    logits, target = scores(torch.float32)
    traced = torch.compile(dense_confusion, backend="aot_eager", fullgraph=True)
    assert torch.equal(traced(logits, target), dense_confusion(logits, target))
