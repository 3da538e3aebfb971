"""Class maps and cross-entropy from coarse logits, against torch on the upsampled ones."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnseg.ops import dense, dense_argmax, dense_cross_entropy, dense_scores, stride_of


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([1, 2, 4, 8, 32]), st.integers(1, 3))
def test_argmax_and_scores_equal_those_of_the_upsampled_logits(height, width, stride, strip):
    torch.manual_seed(height * 91 + width)
    logits = torch.randn(2, 5, -(-height // stride), -(-width // stride), dtype=torch.float64)
    full = F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)[..., :height, :width]
    before, dense.STRIP = dense.STRIP, strip
    try:
        classes, top = dense_scores(logits, (height, width))
    finally:
        dense.STRIP = before
    assert torch.equal(classes.long(), full.argmax(1))
    torch.testing.assert_close(top.double(), full.softmax(1).amax(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (375, 500), (33, 47), (97, 101), (360, 480)])
@pytest.mark.parametrize("stride", [4, 8, 32])
def test_stride_of_finds_the_networks_stride(size, stride):
    assert stride_of(torch.zeros(1, 2, -(-size[0] // stride), -(-size[1] // stride)), size) == stride


def test_stride_of_names_both_sizes():
    with pytest.raises(ValueError, match=r"^logits: 8 x 9 .* 32 x 32"):
        stride_of(torch.zeros(1, 2, 8, 9), (32, 32))


def test_cross_entropy_equals_torch_with_its_gradient():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 9, 11, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 4, (2, 35, 42), dtype=torch.uint8)
    target[0, :5] = 255
    weight = torch.rand(4, dtype=torch.float32)
    loss = dense_cross_entropy(logits, target, weight=weight, label_smoothing=0.1)
    full = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)[..., :35, :42].float()
    expected = F.cross_entropy(full, target.long(), weight, ignore_index=255, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(x, logits)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_all_ignored_is_zero_with_a_zero_gradient():
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    loss = dense_cross_entropy(logits, torch.full((1, 32, 32), 255, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_large_logits_do_not_overflow():
    logits = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    assert torch.isfinite(dense_cross_entropy(logits, torch.ones(1, 32, 32, dtype=torch.uint8)))
    assert not dense_argmax(logits, (32, 32)).any()
