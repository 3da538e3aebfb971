"""Fusion: by hand, against the definition, and the promise that a crop sees the weights of its place."""

import pytest
import torch
import torch.nn.functional as F

from cfnseg.errors import UserError
from cfnseg.models.fusion import FUSIONS, LocallyConnectedFusion, build_fusion


def randomised(fusion: LocallyConnectedFusion) -> LocallyConnectedFusion:
    torch.manual_seed(1)
    torch.nn.init.normal_(fusion.delta)
    torch.nn.init.normal_(fusion.bias)
    return fusion.double()


def test_image_level_lc_is_the_weighted_sum_by_hand():
    fusion = randomised(LocallyConnectedFusion(3, 5))
    g = torch.randn(3, 2, 5, dtype=torch.float64)
    got = fusion([x[..., None, None] for x in g])
    w, b = (fusion.delta + fusion.start)[..., 0, 0], fusion.bias[:, 0, 0]
    for n in range(2):
        for k in range(5):
            by_hand = sum(w[s, k] * g[s, n, k] for s in range(3)) + b[k]
            assert got[n, k, 0, 0].item() == pytest.approx(max(0.0, by_hand.item()), abs=1e-12)


@pytest.mark.parametrize("start, value", [("sum", 1.0), ("mean", 0.25)])
def test_weights_start_at_equal_fusion(start, value):
    fusion = LocallyConnectedFusion(4, 3, (2, 2), start=start)
    branches = [torch.rand(1, 3, 4, 6) for _ in range(4)]
    torch.testing.assert_close(fusion(branches), value * sum(branches))


def test_full_grid_is_one_unshared_weight_per_pixel():
    fusion = randomised(LocallyConnectedFusion(2, 3, (6, 7)))
    torch.nn.init.constant_(fusion.bias, 50.0)  # every ReLU is open, so a change shows
    branches = [torch.randn(2, 3, 6, 7, dtype=torch.float64), torch.randn(2, 3, 3, 4, dtype=torch.float64)]
    up = F.interpolate(branches[1], size=(6, 7), mode="bilinear", align_corners=False)
    w = fusion.delta + fusion.start
    expected = F.relu(w[0] * branches[0] + w[1] * up + fusion.bias)
    torch.testing.assert_close(fusion(branches), expected, rtol=1e-10, atol=1e-10)
    # unshared: a weight touches its own pixel and no other
    with torch.no_grad():
        changed = fusion.delta.clone()
        changed[0, :, 2, 3] += 1
        before, fusion.delta.data = fusion(branches), changed
    moved = (fusion(branches) != before).any(0).any(0).nonzero()
    assert moved.tolist() == [[2, 3]]


@pytest.mark.parametrize("grid", [(1, 1), (3, 4), (8, 12)])
def test_a_crop_with_its_region_reads_the_whole_images_values(grid):
    fusion = randomised(LocallyConnectedFusion(2, 3, grid))
    whole = [torch.randn(1, 3, 8, 12, dtype=torch.float64) for _ in range(2)]
    y, x, h, w = 2, 3, 4, 6
    crop = [b[:, :, y : y + h, x : x + w] for b in whole]
    region = torch.tensor([[x / 12, y / 8, (x + w) / 12, (y + h) / 8]], dtype=torch.float64)
    torch.testing.assert_close(fusion(crop, region), fusion(whole)[:, :, y : y + h, x : x + w])


def test_a_region_beyond_the_image_reads_the_border():
    fusion = randomised(LocallyConnectedFusion(1, 2, (2, 2)))
    ones = [torch.ones(1, 2, 4, 4, dtype=torch.float64)]
    outside = fusion(ones, torch.tensor([[-3.0, -3.0, -2.0, -2.0]]))
    corner = F.relu(fusion.delta[0, :, 0, 0] + fusion.start + fusion.bias[:, 0, 0])
    torch.testing.assert_close(outside, corner[None, :, None, None].expand_as(outside))


@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion_starts_at_the_same_scale_and_has_gradients(name):
    branches = [torch.rand(2, 4, 6, 6, requires_grad=True), torch.rand(2, 4, 3, 3, requires_grad=True)]
    out = build_fusion(name, branches=2, width=4, grid=(2, 2), start="sum")(branches)
    torch.testing.assert_close(out, build_fusion("sum", branches=2, width=4)(branches))
    out.sum().backward()
    assert all(b.grad.abs().sum() > 0 for b in branches)


def test_unknown_fusion_names_the_known_ones():
    with pytest.raises(UserError, match="lc, sum, conv"):
        build_fusion("nope", branches=1, width=1)
