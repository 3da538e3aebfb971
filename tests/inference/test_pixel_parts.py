"""The parts of one pixel sum to the logits of its mask, in one window or in several."""

import numpy as np
import pytest
import torch

from cfnseg.config import Model
from cfnseg.errors import UserError
from cfnseg.inference.pixel_parts import pixel_parts
from cfnseg.inference.predictor import segment
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.inference.windows import strips
from cfnseg.models.build import build_model
from cfnseg.models.cfn import CFN
from cfnseg.models.contributions import contributions
from cfnseg.ops.dense_reference import upsample_logits
from tests.conftest import ENCODER
from tests.models.test_contributions import noisy


@pytest.fixture(scope="module")
def net() -> CFN:
    torch.manual_seed(0)
    return noisy(CFN(ENCODER, 5, width=6, grid=(2, 3)))


def drawn(height: int, width: int) -> torch.Tensor:
    draw = np.random.default_rng(height)
    coarse = torch.from_numpy(draw.integers(0, 256, (1, 3, 9, 9), dtype=np.uint8))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]


def full(net: CFN, image: torch.Tensor, inference: Inference) -> torch.Tensor:
    """(C, H, W) logits at the image's size, as inference upsamples them."""
    rows = []
    with torch.inference_mode():
        for strip in strips(net, image, inference):
            rows.append(upsample_logits(strip.logits, strip.size)[0, :, strip._inner])
    return torch.cat(rows, 1)


@pytest.mark.parametrize(
    "size, inference",
    [
        ((45, 71), PLAIN),
        ((1, 40), PLAIN),
        ((130, 100), Inference(window=(64, 32), overlap=0.4)),
        ((97, 260), Inference(window=(64, 64), scales=(0.75,))),
        ((64, 64), Inference(scales=(2.0,))),
    ],
)
def test_every_parts_sum_is_the_logit(net, size, inference):
    image = drawn(*size)
    logits, mask = full(net, image, inference), segment(net, image, inference).mask
    draw = np.random.default_rng(0)
    places = [(0, 0), (size[1] - 1, size[0] - 1), (size[1] // 2, 0)]
    places += [(int(draw.integers(size[1])), int(draw.integers(size[0]))) for _ in range(4)]
    for x, y in places:
        found = pixel_parts(net, image, x, y, inference)
        assert found.names == [*net.branch_names, "bias"] and found.parts.shape == (7, 5)
        np.testing.assert_allclose(found.logits, logits[:, y, x], rtol=1e-4, atol=1e-4)
        top = np.sort(found.logits)
        assert found.logits.argmax() == mask[y, x] or top[-1] - top[-2] < 1e-4


def test_each_part_is_its_branchs(net):
    """In the middle of four cells a part is the mean of its branch's parts there."""
    image = drawn(64, 96)
    parts, bias = contributions(net, image[None])
    cells = torch.cat([parts[0], bias], 0)[:, :, 5:7, 8:10].mean((2, 3))
    found = [pixel_parts(net, image, x, y).parts for x in (35, 36) for y in (23, 24)]
    np.testing.assert_allclose(np.mean(found, 0), cells, rtol=1e-4, atol=1e-5)


def test_a_large_image_takes_no_more_windows_than_meet(net, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "cfnseg.inference.pixel_parts.view_logits",
        lambda model, images, *rest: seen.append(images.shape) or view(model, images, *rest),
    )
    from cfnseg.inference.augment import view_logits as view

    pixel_parts(net, drawn(512, 512), 250, 250, Inference(window=(128, 128)))
    assert 1 <= len(seen) <= 4 and set(seen) == {(1, 3, 128, 128)}


def test_what_has_no_parts_is_one_line():
    net = build_model(Model(name="fcn", encoder=ENCODER, encoder_weights=None), 3)
    with pytest.raises(UserError, match="only a CFN's branches"):
        pixel_parts(net, drawn(32, 32), 0, 0)
