"""Focal, Dice, Tversky and Lovasz losses against segmentation-models-pytorch on full logits."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch.losses import DiceLoss, LovaszLoss, TverskyLoss
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits

from cfnseg.config import Config, Data, Loss, Model, Train, check
from cfnseg.errors import UserError
from cfnseg.training import loss_terms
from cfnseg.training.loss import pixel_loss
from tests.training.test_loss import case


def oracle(name: str, full: torch.Tensor, mask: torch.Tensor, weight=None) -> torch.Tensor:
    """The loss of segmentation-models-pytorch; the focal one is that of the counted pixels."""
    target = mask.long()
    if name == "dice":
        return DiceLoss("multiclass", ignore_index=255)(full, target)
    if name == "tversky":
        return TverskyLoss("multiclass", ignore_index=255, alpha=0.3, beta=0.7)(full, target)
    if name == "lovasz":
        each = [
            LovaszLoss("multiclass", ignore_index=255)(one[None], ids[None])
            if (ids != 255).any()
            else one.sum() * 0
            for one, ids in zip(full, target)
        ]
        return torch.stack(each).mean()
    counted = target != 255
    pixels, ids = full.permute(0, 2, 3, 1)[counted], target[counted]
    each = softmax_focal_loss_with_logits(pixels, ids, gamma=2.0, reduction="none")
    weights = torch.ones_like(each) if weight is None else weight[ids]
    return (each * weights).sum() / weights.sum()


def full_size(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    up = F.interpolate(logits, scale_factor=4, mode="bilinear")
    return up[..., : mask.shape[1], : mask.shape[2]]


@pytest.mark.parametrize("name", ["focal", "dice", "tversky", "lovasz"])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_library_on_full_logits(name, weighted):
    logits, _, mask, _, weight = case()
    weight = weight if weighted else None
    results = []
    for loss in (
        lambda x: pixel_loss(x, mask, Loss(terms=(name,)), weight),
        lambda x: oracle(name, full_size(x, mask), mask, weight),
    ):
        own = logits.clone().requires_grad_()
        value = loss(own)
        value.backward()
        results.append((value.detach(), own.grad))
    assert results[0][1].any()
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-7)


@given(
    st.sampled_from(["focal", "dice", "tversky", "lovasz"]),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_any_size_and_any_share_of_ignored_pixels(name, images, classes, height, width, seed):
    torch.manual_seed(seed)
    logits = torch.randn(images, classes, -(-height // 4), -(-width // 4))
    mask = torch.randint(0, classes + 1, (images, height, width))
    mask = torch.where(mask == classes, 255, mask).to(torch.uint8)
    found = pixel_loss(logits, mask, Loss(terms=(name,)), None)
    if (mask == 255).all() or (name, classes) == ("lovasz", 1):
        assert found == 0
        return
    torch.testing.assert_close(
        found, oracle(name, full_size(logits, mask), mask), rtol=1e-4, atol=1e-6
    )


def test_terms_add_up_with_their_factors():
    logits, _, mask, _, weight = case()
    alone = {
        name: pixel_loss(logits, mask, Loss(terms=(name,)), weight)
        for name in ("ce", "dice", "lovasz")
    }
    both = pixel_loss(logits, mask, Loss(terms=("ce", "dice:0.5", "lovasz:2")), weight)
    assert both.item() == pytest.approx(
        (alone["ce"] + 0.5 * alone["dice"] + 2 * alone["lovasz"]).item(), rel=1e-6
    )


@pytest.mark.parametrize("name", ["focal", "dice", "tversky", "lovasz"])
def test_nothing_counted_is_zero_with_zero_gradient(name):
    logits, _, mask, _, weight = case()
    logits.requires_grad_()
    loss = pixel_loss(logits, torch.full_like(mask, 255), Loss(terms=(name,)), weight)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_gradients_in_float64(monkeypatch):
    monkeypatch.setattr(
        loss_terms, "_upsampled", lambda x, m: F.interpolate(x[None], scale_factor=4.0)
    )
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.randint(0, 3, (2, 8, 8), dtype=torch.uint8)
    mask[0, :2] = 255
    for missed in (0.5, 0.7):
        assert torch.autograd.gradcheck(
            lambda x, missed=missed: loss_terms.overlap_loss(x, mask, missed), logits
        )


def test_only_one_image_at_a_time_is_upsampled(monkeypatch):
    shapes = []
    plain = loss_terms.upsample_logits

    def seen(logits, size):
        shapes.append(logits.shape[0])
        return plain(logits, size)

    monkeypatch.setattr(loss_terms, "upsample_logits", seen)
    logits, _, mask, _, _ = case()
    logits.requires_grad_()
    pixel_loss(logits, mask, Loss(terms=("dice", "lovasz")), None).backward()
    assert set(shapes) == {1} and len(shapes) == 4 * len(mask)  # forward, and again in backward


@pytest.mark.parametrize("terms", [(), ("dise",), ("ce", "ce:2"), ("dice:-1",), ("dice:x",)])
def test_terms_that_no_run_could_use(terms):
    with pytest.raises(UserError, match=r"loss\.terms"):
        check(Config(loss=Loss(terms=terms), name="x"))


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (Config(loss=Loss(terms=("ce", "dice")), train=Train(accumulate=2)), "accumulate"),
        (Config(loss=Loss(terms=("tversky",)), train=Train(accumulate=0)), "accumulate"),
        (Config(loss=Loss(terms=("ce", "dice"), ohem=0.2)), "ohem"),
        (
            Config(
                model=Model(level="image"), data=Data(name="cifar10"), loss=Loss(terms=("focal",))
            ),
            "terms",
        ),
    ],
)
def test_settings_that_exclude_each_other(config, what):
    with pytest.raises(UserError, match=what):
        check(dataclasses.replace(config, name="x"))
