"""Decoders: any size behind our contract, and their authors' output to the last digit."""

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.models.segmentation.lraspp import LRASPP

from cfnseg.errors import UserError
from cfnseg.models.decoders import DECODERS, SMP, TORCHVISION, Decoder
from cfnseg.ops.dense_reference import upsample_logits
from tests.conftest import ENCODER

C = 5
STRIDE = {
    "unet": 1,
    "fpn": 4,
    "deeplabv3plus": 4,
    "upernet": 4,
    "segformer": 4,
    "fcn_tv": 8,
    "deeplabv3": 8,
    "lraspp": 8,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of encoder weights, batch-norm statistics included."""
    torch.manual_seed(7)
    state = timm.create_model(ENCODER, pretrained=False).state_dict()
    for key, value in state.items():
        if key.endswith("running_mean"):
            value.normal_()
        elif key.endswith("running_var"):
            value.uniform_(0.5, 2.0)
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    save_file({k: v for k, v in state.items() if "num_batches" not in k}, path)
    return path


@pytest.fixture(scope="module", params=DECODERS)
def net(request, weights):
    torch.manual_seed(0)
    net = Decoder(request.param, ENCODER, C, encoder_weights=str(weights)).eval()
    net.name = request.param
    return net


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (70, 100)])
def test_any_size(net, size):
    torch.manual_seed(1)
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with torch.inference_mode():
        out, same = net(images), net(images.float() / 255)
    stride = STRIDE[net.name]
    assert out.pixel.shape == (2, C, -(-size[0] // stride), -(-size[1] // stride))
    assert out.image.shape == (2, C)
    assert out.side == ()
    assert upsample_logits(out.pixel, size).shape[-2:] == size
    torch.testing.assert_close(out.pixel, same.pixel)
    torch.testing.assert_close(out.image, same.image)


def test_each_image_on_its_own_and_no_region(net):
    torch.manual_seed(2)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        both, one = net(images), net(images[1:], torch.tensor([[0.2, 0.2, 0.5, 0.5]]))
    torch.testing.assert_close(both.pixel[1:], one.pixel, rtol=1e-4, atol=5e-5)
    torch.testing.assert_close(both.image[1:], one.image, rtol=1e-4, atol=1e-5)


class Stages(nn.Module):
    """A timm body as torchvision's segmentation models want theirs."""

    def __init__(self, stride: int, names: dict[str, int]) -> None:
        super().__init__()
        self.body = timm.create_model(ENCODER, features_only=True, output_stride=stride)
        self.names = names

    def forward(self, x):
        maps = self.body(x)
        return {name: maps[i] for name, i in self.names.items()}


def original(net: Decoder) -> nn.Module:
    """The model as its authors build it, with the weights of `net`."""
    if net.name in SMP:
        whole = smp.create_model(net.name, f"tu-{ENCODER}", encoder_weights=None, classes=C)
        whole.encoder.model.load_state_dict(net.encoder.body.state_dict())
        whole.decoder.load_state_dict(net.decoder.body.state_dict())
        whole.segmentation_head[0].load_state_dict(net.decoder.head.state_dict())
        whole.segmentation_head[1] = nn.Identity()
        return whole.eval()
    channels = net.encoder.channels
    whole = {
        "fcn_tv": lambda: FCN(Stages(8, {"out": -1}), FCNHead(channels[-1], C)),
        "deeplabv3": lambda: DeepLabV3(Stages(8, {"out": -1}), DeepLabHead(channels[-1], C)),
        "lraspp": lambda: LRASPP(Stages(16, {"low": 2, "high": -1}), channels[2], channels[-1], C),
    }[net.name]()
    whole.backbone.body.load_state_dict(net.encoder.body.state_dict())
    whole.classifier.load_state_dict(net.decoder.head.state_dict())
    return whole.eval()


def test_it_is_the_original(net):
    torch.manual_seed(3)
    images = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        ours = net(images).pixel
        theirs = original(net)((images - net.encoder.mean) / net.encoder.std)
        if net.name in TORCHVISION:  # whose last upsampling is ours as well
            ours, theirs = upsample_logits(ours, (64, 96)), theirs["out"]
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs)


def test_the_trunk_is_the_same_in_all(net, weights):
    """A dilated trunk has the weights of the plain one."""
    state = timm.create_model(ENCODER, features_only=True, pretrained=False)
    plain = Decoder("unet", ENCODER, C, encoder_weights=str(weights)).encoder.body.state_dict()
    assert plain.keys() == net.encoder.body.state_dict().keys() == state.state_dict().keys()
    for key, value in net.encoder.body.state_dict().items():
        assert torch.equal(value, plain[key]) or "num_batches" in key, key


def test_parameter_table_is_the_originals_and_an_image_head(net):
    table = net.parameter_table()
    assert (
        table["total"]
        == sum(p.numel() for p in net.parameters())
        == table["encoder"] + table["decoder"] + table["heads"]
    )
    assert table["encoder"] + table["decoder"] == sum(p.numel() for p in original(net).parameters())


def test_a_training_step_reaches_every_parameter(net):
    torch.manual_seed(4)
    net.train().zero_grad()
    out = net(torch.randint(0, 256, (2, 3, 70, 100), dtype=torch.uint8))
    (out.pixel.square().mean() + out.image.square().mean()).backward()
    net.eval()
    bad = [
        n for n, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()
    ]
    assert not bad


@pytest.mark.parametrize("name", DECODERS)
def test_backbones_without_a_stage_at_stride_2(name):
    """timm's ConvNeXts have four stages."""
    with torch.inference_mode():
        try:
            net = Decoder(name, "test_convnext", C).eval()
        except UserError as error:
            pytest.fail(str(error))
        out = net(torch.rand(1, 3, 33, 70))
    assert out.pixel.shape[-2:] == (-(-33 // STRIDE[name]), -(-70 // STRIDE[name]))


def test_unknown_backbone_gets_near_names():
    with pytest.raises(UserError, match="resnet50"):
        Decoder("unet", "resnet5O", C)
