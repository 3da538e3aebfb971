"""Every name in MODELS: built from settings, trained a step, kept and loaded again."""

import pytest
import torch

from cfnseg.config import Loss, Model
from cfnseg.data.labels import Label, LabelMap
from cfnseg.engine.checkpoint import load, save_weights
from cfnseg.engine.loss import batch_loss
from cfnseg.errors import UserError
from cfnseg.models.build import MODELS, build_model
from tests.conftest import ENCODER

LABELS = LabelMap([Label(i, f"class{i}", (i, i, i)) for i in range(5)])
SIZE = (45, 70)


@pytest.fixture(scope="module", params=MODELS)
def settings(request) -> Model:
    return Model(name=request.param, encoder=ENCODER, encoder_weights=None, width=8, grid=(2, 3), test_scale=0.5)


@pytest.fixture(scope="module")
def model(settings):
    torch.manual_seed(0)
    return build_model(settings, len(LABELS))


def test_parameter_table_adds_up(model):
    table = model.parameter_table()
    assert table["total"] == sum(p.numel() for p in model.parameters()) == sum(v for k, v in table.items() if k != "total")


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
    assert not [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
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


def test_unknown_model_gets_near_names():
    with pytest.raises(UserError, match=r"model\.name 'deeplabv3\+' is unknown; did you mean deeplabv3, deeplabv3plus\?") as error:
        build_model(Model(name="deeplabv3+", encoder=ENCODER), 3)
    assert error.value.code == 2
