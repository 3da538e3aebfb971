"""Every name in MODELS: built from settings, trained a step, kept and loaded again."""

import pytest
import torch

from cfnseg.config import Loss, Model
from cfnseg.data.labels import Label, LabelMap
from cfnseg.errors import UserError
from cfnseg.models.build import IMAGE_MODELS, MODELS, build_model
from cfnseg.models.fusion import FUSIONS
from cfnseg.models.trial import unused_parameters
from cfnseg.models.weights import load, save_weights
from cfnseg.training.loss import batch_loss
from tests.conftest import ENCODER

LABELS = LabelMap([Label(i, f"class{i}", (i, i, i)) for i in range(5)])
SIZE = (45, 70)


@pytest.fixture(scope="module", params=MODELS)
def settings(request) -> Model:
    return Model(
        name=request.param,
        encoder=ENCODER,
        encoder_weights=None,
        width=8,
        grid=(2, 3),
        test_scale=0.5,
    )


@pytest.fixture(scope="module")
def model(settings):
    torch.manual_seed(0)
    return build_model(settings, len(LABELS))


def test_parameter_table_adds_up(model):
    table = model.parameter_table()
    assert (
        table["total"]
        == sum(p.numel() for p in model.parameters())
        == sum(v for k, v in table.items() if k != "total")
    )


def test_a_step_and_a_file(model, settings, tmp_path):
    torch.manual_seed(1)
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    region = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.4, 0.3, 1.2, 1.0]])
    mask = torch.randint(0, len(LABELS), (2, *SIZE), dtype=torch.uint8)
    mask[:, :9] = 255
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss = batch_loss(model.train()(images, region), mask, Loss(), None, side=0.3)
    loss.backward()
    assert torch.isfinite(loss)
    # with several processes every parameter needs a gradient
    assert not [
        n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()
    ]
    optimizer.step()
    model.eval()
    save_weights(tmp_path / "w.safetensors", model, settings, LABELS, {"miou": 0.5})
    again = load(tmp_path / "w.safetensors")
    assert again.settings == settings
    assert again.model.test_scale == 0.5
    with torch.inference_mode():
        for where in (None, region):
            ours, theirs = model(images, where), again.model(images, where)
            assert torch.equal(ours.pixel, theirs.pixel)
            assert torch.equal(ours.image, theirs.image)
            assert ours.side == theirs.side == ()


def test_every_parameter_gets_a_gradient(model):
    assert unused_parameters(model) == []


@pytest.mark.parametrize("order", ["eflp", "eplf"])
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("norm", ["none", "single"])
def test_every_parameter_of_every_fusion_gets_a_gradient(order, fusion, norm):
    settings = Model(
        encoder=ENCODER,
        encoder_weights=None,
        width=8,
        grid=(2, 3),
        order=order,
        fusion=fusion,
        fusion_norm=norm,
    )
    assert unused_parameters(build_model(settings, 3)) == []


@pytest.mark.parametrize("encoder", ["cifar_net", "cfn11", ENCODER])
@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_parameter_of_an_image_level_net_gets_a_gradient(name, encoder):
    assert (
        unused_parameters(
            build_model(
                Model(level="image", name=name, encoder=encoder, encoder_weights=None, width=8), 3
            )
        )
        == []
    )


def test_stages_that_no_branch_reads_are_found_and_nothing_changes():
    model = build_model(
        Model(encoder="lcnet_035", encoder_weights=None, width=8, strides=(8, 16)), 3
    ).eval()
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    found = unused_parameters(model)
    assert found
    assert all(n.startswith("encoder.body.blocks.5.") for n in found)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    for name in found:
        model.get_parameter(name).requires_grad_(False)
    mask = torch.randint(0, 3, (2, *SIZE), dtype=torch.uint8)
    batch_loss(
        model.train()(torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)), mask, Loss(), None
    ).backward()
    assert {n for n, p in model.named_parameters() if p.grad is None} == set(found)


def test_unknown_model_gets_near_names():
    with pytest.raises(
        UserError,
        match=r"model\.name 'deeplabv3\+' is unknown; did you mean deeplabv3, deeplabv3plus\?",
    ) as error:
        build_model(Model(name="deeplabv3+", encoder=ENCODER), 3)
    assert error.value.code == 2
