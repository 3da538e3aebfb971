"""The network as compilers and exporters get it: one graph; any batch, height and width."""

import io
import itertools
import time

import pytest
import torch

from cfnseg.config import Loss
from cfnseg.models.backbone import constant_padding
from cfnseg.models.cfn import CFN
from cfnseg.models.encoder import rounded
from cfnseg.models.fusion import FUSIONS
from cfnseg.training.loss import batch_loss
from tests.conftest import ENCODER

LITE = "tf_efficientnet_lite0"
SIZE = 64, 80
HEADS = [(order, fusion, True) for order, fusion in itertools.product(("eflp", "eplf"), FUSIONS)]


class Maps(torch.nn.Module):
    """Fixed maps in place of an encoder: half of the time to trace a network is its encoder's."""

    def __init__(self, encoder):
        super().__init__()
        self.strides, self.padding = encoder.strides, encoder.padding
        sides = [rounded(side, encoder.padding) for side in SIZE]
        self.maps = [
            torch.rand(2, channels, *(side // stride for side in sides))
            for channels, stride in zip(encoder.channels, encoder.strides)
        ]

    def forward(self, images):
        return self.maps


@pytest.mark.parametrize("order, fusion, whole", [*HEADS, ("eflp", "lc", False)])
def test_training_of_heads_is_one_graph(order, fusion, whole):
    net = CFN(ENCODER, 5, width=8, order=order, fusion=fusion, side_losses=order == "eplf")
    net.encoder = Maps(net.encoder)
    one_graph(net.train(), whole)


@pytest.mark.parametrize(
    "encoder, order, whole",
    [
        (ENCODER, "eflp", False),
        (ENCODER, "eplf", True),
        (LITE, "eflp", True),
        ("resnet18", "eplf", False),
    ],
)
def test_training_is_one_graph(encoder, order, whole):
    one_graph(CFN(encoder, 5, width=8, order=order, side_losses=order == "eplf").train(), whole)


def one_graph(net, whole):
    weight = torch.rand(5)

    def loss(images, mask, region):
        return batch_loss(net(images, region), mask, Loss(label_smoothing=0.1), weight, side=0.5)

    batch = (
        torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8),
        torch.randint(0, 5, (2, *SIZE), dtype=torch.uint8),
    )
    torch._dynamo.reset()
    seen = torch._dynamo.explain(loss)(*batch, None if whole else torch.rand(2, 4))
    assert (seen.graph_count, seen.graph_break_count) == (1, 0), seen.break_reasons


class Plain(torch.nn.Module):
    """Logits as a plain tuple: a saved program can name no class of this package."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images, region=None):
        return self.net(images, region)[:2]


def exported(net, kind, region):
    """The program for any batch and size, saved and loaded, and how long exporting took."""
    any_size = torch.export.Dim.DYNAMIC
    shapes = {0: any_size, 2: any_size, 3: any_size}, *([{0: any_size}] if region else [])
    began = time.perf_counter()
    program = torch.export.export(
        Plain(net), example(2, 97, 131, kind, region), dynamic_shapes=shapes
    )
    seconds = time.perf_counter() - began
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file), seconds


def example(images, height, width, kind, region):
    image = torch.randint(0, 256, (images, 3, height, width), dtype=torch.uint8)
    image = image if kind == torch.uint8 else image / 255
    return (image, torch.rand(images, 4).cumsum(1)) if region else (image,)


@pytest.mark.parametrize(
    "encoder, order, kind, region",
    [
        (ENCODER, "eflp", torch.uint8, False),
        (ENCODER, "eplf", torch.float32, True),
        pytest.param(LITE, "eflp", torch.float32, False, marks=pytest.mark.slow),
    ],
)
def test_an_exported_program_agrees_at_other_sizes_and_batches(encoder, order, kind, region):
    torch.manual_seed(0)
    net = CFN(encoder, 5, width=8, order=order, grid=(3, 4)).eval()
    for predictor in (*net.pixel.predictors, *net.image.predictors):
        torch.nn.init.normal_(predictor[1].weight)  # logits that are far from 0
    torch.nn.init.normal_(net.pixel.fusion.delta)
    program, seconds = exported(net, kind, region)
    assert seconds < 120
    assert not [
        node for node in program.graph.nodes if "cfnseg" in str(node.target)
    ]  # it loads without this package
    run = program.module()
    for images, size in itertools.product((1, 3), ((97, 131), (64, 80), (240, 322), (33, 96))):
        inputs = example(images, *size, kind, region)
        with torch.no_grad():
            found, expected = run(*inputs), net(*inputs)
        assert expected.pixel.abs().max() > 0.1
        torch.testing.assert_close(found, expected[:2], rtol=1e-4, atol=1e-4)
    with pytest.raises(
        (AssertionError, RuntimeError), match="33"
    ):  # the smallest side of an exported program
        run(*example(1, 64, 32, kind, region))


def test_constant_padding_is_the_same_padding():
    import timm

    for name, settings in ((LITE, {}), ("tf_efficientnet_b0", {"output_stride": 8})):
        torch.manual_seed(0)
        theirs = timm.create_model(name, features_only=True, **settings).eval()
        ours = constant_padding(timm.create_model(name, features_only=True, **settings)).eval()
        assert {type(part).__name__ for part in ours.modules()}.isdisjoint({"Conv2dSame"})
        ours.load_state_dict(theirs.state_dict())
        image = torch.rand(1, 3, 96, 160)
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(ours(image), theirs(image)))
