"""The network: any size, one contract, and a crop that agrees with its image."""

import pytest
import torch

from cfnseg.models.cfn import CFN, padded_region
from tests.conftest import ENCODER


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = CFN(ENCODER, 5, width=8, grid=(3, 4)).eval()
    torch.nn.init.normal_(net.pixel.fusion.delta)
    return net


@pytest.mark.parametrize("size", [(32, 32), (33, 65), (97, 61), (375, 500)])
def test_any_size_from_32(net, size):
    with torch.inference_mode():
        out = net(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
    assert out.pixel.shape == (2, 5, -(-size[0] // 4), -(-size[1] // 4))
    assert out.image.shape == (2, 5)


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 31, 64), torch.zeros(1, 4, 64, 64), torch.zeros(3, 64, 64)]
)
def test_wrong_images_are_named(net, images):
    with pytest.raises(ValueError, match="images: expected"):
        net(images)


def test_uint8_and_float_agree(net):
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(net(images).pixel, net(images.float() / 255).pixel)


def test_region_matters_and_none_is_the_whole_image(net):
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        whole = net(images).pixel
        torch.testing.assert_close(net(images, torch.tensor([[0.0, 0, 1, 1]])).pixel, whole)
        assert not torch.allclose(net(images, torch.tensor([[0.5, 0.5, 1, 1]])).pixel, whole)


def test_padding_does_not_move_the_region():
    region = padded_region(None, (48, 80), torch.zeros(1))
    torch.testing.assert_close(region, torch.tensor([[0.0, 0.0, 96 / 80, 64 / 48]]))
    assert padded_region(None, (64, 96), torch.zeros(1)).tolist() == [[0, 0, 1, 1]]


def test_parameter_table_adds_up():
    net = CFN("tf_efficientnet_lite0", 11, width=128, grid=(12, 16))
    table = net.parameter_table()
    assert (
        table["total"]
        == sum(p.numel() for p in net.parameters())
        == sum(v for k, v in table.items() if k != "total")
    )
    assert net.pixel.fusion.delta.shape == (6, 128, 12, 16)  # five stages and the context


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenetv2_100", "convnext_atto"])
def test_other_encoders_by_name(encoder):
    with torch.inference_mode():
        out = CFN(encoder, 3, width=8).eval()(torch.zeros(1, 3, 40, 72))
    assert out.pixel.shape == (1, 3, 10, 18)
