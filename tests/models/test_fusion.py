"""Every fusion: by hand, the shared start, gradients, and what sets each apart."""

import pytest
import torch
import torch.nn.functional as F

from cfnseg.errors import UserError
from cfnseg.models.fusion import FUSIONS, LocallyConnectedFusion, build_fusion
from cfnseg.models.parts import Head

SIZES = [(8, 12), (4, 6), (2, 3), (1, 2)]


def maps(
    channels: int = 3, images: int = 2, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    """Four branches of halving size, with negative values, so that a ReLU shows."""
    torch.manual_seed(0)
    return [torch.randn(images, channels, *size, dtype=dtype) for size in SIZES]


def upsampled(branches: list[torch.Tensor]) -> list[torch.Tensor]:
    finest = branches[0].shape[-2:]
    return [
        b
        if b.shape[-2:] == finest
        else F.interpolate(b, size=finest, mode="bilinear", align_corners=False)
        for b in branches
    ]


def randomised(fusion: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    torch.manual_seed(seed)
    for p in fusion.parameters():
        torch.nn.init.normal_(p)
    return fusion.double()


@pytest.mark.parametrize("start, factor", [("sum", 1.0), ("mean", 0.25)])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion_starts_as_the_plain_sum_or_mean(name, relu, start, factor):
    branches = maps()
    expected = sum(upsampled(branches)) * factor
    got = build_fusion(name, branches=4, width=3, grid=(2, 3), start=start, relu=relu)(branches)
    torch.testing.assert_close(
        got, F.relu(expected) if relu else expected, rtol=1e-6, atol=1e-6
    )  # rounding alone
    assert (got < 0).any() != relu


@pytest.mark.parametrize("start, factor", [("sum", 1.0), ("mean", 0.25)])
@pytest.mark.parametrize("order", ["eflp", "eplf"])
@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion_starts_so_in_either_order(name, order, start, factor):
    head = Head(4, 3, 5, order, fusion=name, grid=(2, 3), start=start, std=1.0).double().eval()
    branches = maps(dtype=torch.float64)
    if order == "eflp":
        expected = head.predictors[0](F.relu(sum(upsampled(branches)) * factor))
    else:
        expected = sum(upsampled([p(b) for p, b in zip(head.predictors, branches)])) * factor
    torch.testing.assert_close(head(branches)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", ["channel", "single"])
@pytest.mark.parametrize("name", FUSIONS)
def test_the_norm_stands_before_the_relu(name, norm):
    fusion = build_fusion(name, branches=4, width=3, grid=(2, 3), norm=norm)
    plain = sum(upsampled(maps()))
    over = (0, 2, 3) if norm == "channel" else (0, 1, 2, 3)
    normed = (plain - plain.mean(over, keepdim=True)) / (
        plain.var(over, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(fusion(maps()), F.relu(normed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start, total", [("sum", 4.0), ("mean", 1.0)])
def test_adaptive_weights_sum_to_s_or_one(start, total):
    fusion = randomised(build_fusion("adaptive", branches=4, width=3, start=start, relu=False))
    same = maps(dtype=torch.float64)[0]
    torch.testing.assert_close(fusion([same] * 4), total * same, rtol=1e-5, atol=1e-5)


def test_adaptive_weights_by_hand():
    fusion = randomised(build_fusion("adaptive", branches=4, width=3, relu=False))
    up = upsampled(maps(dtype=torch.float64))
    score = sum(
        torch.einsum("sk,nkhw->nshw", c.weight[..., 0, 0], u) + c.bias[:, None, None]
        for c, u in zip(fusion.score, up)
    )
    share = score.exp() / score.exp().sum(1, keepdim=True)
    assert share.std() > 0.1  # weights follow the input
    expected = 4 * torch.einsum("nshw,snkhw->nkhw", share, torch.stack(up))
    torch.testing.assert_close(fusion(maps(dtype=torch.float64)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["lc", "conv", "adaptive"])
def test_gradients(name):
    fusion = randomised(build_fusion(name, branches=2, width=2, grid=(2, 3), relu=False))
    branches = [b[:1, :2].requires_grad_() for b in maps(dtype=torch.float64)[1:3]]
    region = torch.tensor([[0.1, -0.2, 0.7, 0.9]], dtype=torch.float64)
    own = dict(fusion.named_parameters())

    def run(*values):
        return torch.func.functional_call(
            fusion, dict(zip(own, values)), (values[len(own) :], region)
        )

    assert torch.autograd.gradcheck(
        run, (*(p.detach().requires_grad_() for p in own.values()), *branches)
    )


def pair(grid: tuple[int, int]) -> tuple[torch.nn.Module, torch.nn.Module]:
    """lc and displaced with the same weights."""
    lc, displaced = (
        randomised(build_fusion(name, branches=4, width=3, grid=grid, relu=False))
        for name in ("lc", "displaced")
    )
    return lc, displaced


@pytest.mark.parametrize("norm", ["none", "channel", "single"])
def test_displaced_has_the_parameters_of_lc(norm):
    shapes = [
        [
            tuple(p.shape)
            for p in build_fusion(name, branches=4, width=3, grid=(6, 8), norm=norm).parameters()
        ]
        for name in ("lc", "displaced")
    ]
    assert shapes[0] == shapes[1]


def test_displaced_moves_a_grid_that_is_not_constant_and_no_other():
    lc, displaced = pair((2, 3))
    branches = maps(dtype=torch.float64)
    assert (displaced(branches) - lc(branches)).abs().mean() > 0.1
    with torch.no_grad():
        for fusion in (lc, displaced):
            for p in fusion.parameters():
                p.copy_(p[..., :1, :1].expand_as(p))
    torch.testing.assert_close(displaced(branches), lc(branches), rtol=1e-6, atol=1e-6)


def test_displaced_says_nothing_of_the_place():
    """The weight that a cell reads has the same mean and variance everywhere, in a crop too."""
    torch.manual_seed(3)
    displaced = build_fusion("displaced", branches=1, width=1, grid=(3, 4), relu=False).double()
    torch.nn.init.normal_(displaced.delta)
    ones = [torch.ones(20_000, 1, 3, 4, dtype=torch.float64)]
    for region in (None, torch.tensor([[0.6, 0.1, 0.9, 0.8]]).expand(20_000, 4)):
        read = displaced(ones, region)[:, 0].detach()
        assert read.std(0).min() > 0.3
        grid = torch.nn.functional.interpolate(
            displaced.delta, (300, 400), mode="bilinear", align_corners=False
        )
        assert (read.mean(0) - 1 - grid.mean()).abs().max() < 5 * read.std(0).max() / 20_000**0.5
        assert read.std(0).max() / read.std(0).min() < 1.05


def test_displaced_reads_a_region_of_the_same_size():
    """Along a row weights rise as they do in lc: smoothness is lc's."""
    lc, displaced = pair((1, 2))
    with torch.no_grad():
        for fusion in (lc, displaced):
            fusion.delta.copy_(torch.tensor([0.0, 1.0]).expand_as(fusion.delta))
            fusion.bias.zero_()
    ones = [torch.ones(400, 3, 2, 64, dtype=torch.float64) * (s == 0) for s in range(4)]
    steps = [fusion(ones).diff(dim=-1).abs().max() for fusion in (lc, displaced)]
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(FUSIONS.keys() - {"displaced"}))
def test_a_crop_with_its_region_agrees_with_its_image(name):
    """All branches at the finest size, so that upsampling knows no border."""
    fusion = randomised(build_fusion(name, branches=4, width=3, grid=(3, 4), relu=False))
    torch.manual_seed(2)
    whole = [torch.randn(1, 3, 16, 24, dtype=torch.float64) for _ in range(4)]
    y, x, h, w = 8, 8, 8, 16
    region = torch.tensor([[x / 24, y / 16, (x + w) / 24, (y + h) / 16]], dtype=torch.float64)
    crop = [b[..., y : y + h, x : x + w] for b in whole]
    expected = fusion(whole)[..., y : y + h, x : x + w]
    torch.testing.assert_close(fusion(crop, region), expected, rtol=1e-6, atol=1e-6)
    if name == "lc":  # here the place matters
        assert not torch.allclose(fusion(crop), expected)


def test_unknown_names():
    with pytest.raises(
        UserError,
        match=r"model\.fusion 'adaptiv' is unknown; did you mean adaptive\?.*lc, sum, conv",
    ) as error:
        build_fusion("adaptiv", branches=1, width=1)
    assert error.value.code == 2
    with pytest.raises(
        UserError, match=r"model\.fusion_norm 'chanel' is unknown; did you mean channel\?"
    ):
        build_fusion("lc", branches=1, width=1, norm="chanel")


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
    branches = [
        torch.randn(2, 3, 6, 7, dtype=torch.float64),
        torch.randn(2, 3, 3, 4, dtype=torch.float64),
    ]
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
    branches = [
        torch.rand(2, 4, 6, 6, requires_grad=True),
        torch.rand(2, 4, 3, 3, requires_grad=True),
    ]
    out = build_fusion(name, branches=2, width=4, grid=(2, 2), start="sum")(branches)
    torch.testing.assert_close(out, build_fusion("sum", branches=2, width=4)(branches))
    out.sum().backward()
    assert all(b.grad.abs().sum() > 0 for b in branches)


def test_unknown_fusion_names_the_known_ones():
    with pytest.raises(UserError, match="lc, sum, conv"):
        build_fusion("nope", branches=1, width=1)
