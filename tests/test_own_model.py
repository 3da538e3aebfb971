"""A user's own network, data and loss: trained, resumed, scored and loaded again."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cfnseg
from cfnseg.errors import UserError
from cfnseg.models.segmenter import Output
from tests.conftest import changed
from tests.data.test_own_data import Scenes


class Own(nn.Module):
    """Twenty lines: normalised colours, two convolutions at stride 4, a pixel and an image head."""

    def __init__(self, classes, width=8):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images, region=None):
        logits = self.head(self.body(images.float() / 255 - 0.5))
        return Output(logits, logits.mean((2, 3)))


def own_loss(output, batch):
    logits = F.interpolate(output.pixel, batch["mask"].shape[-2:], mode="bilinear")
    return F.cross_entropy(logits, batch["mask"].long(), ignore_index=255)


@pytest.fixture
def config(tiny):
    return replace(
        changed(
            changed(tiny, "data", name="scenes"), "train", max_steps=4, val_every=9, pictures=1
        ),
        name="own",
    )


def test_all_three(config):
    data, model = (Scenes(8), Scenes(3, 100)), Own(len(Scenes(1).labels))
    torch.manual_seed(0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    run = cfnseg.train(changed(config, "train", max_steps=2), data=data, model=model, loss=own_loss)
    assert cfnseg.train(config, True, data, model, own_loss) == run
    assert not any(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    report = json.loads((run / "report" / "report.json").read_text())
    assert report["num_images"] == 3

    path = run / "best.safetensors"
    with pytest.raises(
        UserError,
        match=r"best.safetensors: its model is no code of cfnseg; "
        r"give the model: cfnseg.load\(path, model\)$",
    ):
        cfnseg.load(path)
    loaded = cfnseg.load(path, Own(len(data[0].labels)))
    assert loaded.labels.names == data[0].labels.names
    assert all(torch.equal(v, loaded.model.state_dict()[k]) for k, v in model.state_dict().items())
    assert cfnseg.evaluate(loaded.model, data[1], workers=0).scores.miou == pytest.approx(
        report["miou"], abs=1e-4
    )
    assert cfnseg.Predictor(loaded, "cpu")(data[1].image(0)).mask.shape == (64, 80)
    with pytest.raises(
        UserError, match=r"do not fit the model that was given: body.0.weight is \(8, 3, 3, 3\)"
    ):
        cfnseg.load(path, Own(len(data[0].labels), width=4))
    with pytest.raises(UserError, match="--resume: the model's parameters differs"):
        cfnseg.train(config, True, data, Own(len(data[0].labels), width=4), own_loss)


def test_parts_have_the_loss_of_the_whole(config):
    """A mean over images: the parts weigh by their images."""
    from cfnseg.data.loader import Batch
    from cfnseg.training.tasks import segmentation, with_loss

    task = with_loss(
        segmentation(config),
        lambda output, batch: output.pixel.mean() + batch["mask"].float().mean(),
    )
    pixel, mask = torch.randn(5, 2, 4, 4), torch.randint(0, 2, (5, 16, 16), dtype=torch.uint8)
    whole, *parts = (
        task.loss(
            Output(pixel[p], pixel[p].mean((2, 3))), Batch(image=pixel[p], mask=mask[p]), totals=n
        )
        for p, n in ((slice(0, 5), None), (slice(0, 2), 5), (slice(2, 5), 5))
    )
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Own(3), r"logits are \(2, 3, 16, 16\) and \(2, 3\); expected \(2, \d, h, w\)"),
        (
            nn.Conv2d(3, 8, 1),
            "the model fails on a training batch .*; expected cfnseg.models.segmenter.Output",
        ),
    ],
)
def test_a_model_that_cannot_train_is_one_line(config, model, message):
    with pytest.raises(UserError, match=message):
        cfnseg.train(config, data=(Scenes(8), Scenes(3, 100)), model=model)


def test_no_other_start(config):
    with pytest.raises(UserError, match="train.init is for models of cfnseg"):
        cfnseg.train(
            changed(config, "train", init="x.safetensors"),
            data=(Scenes(8), Scenes(3, 100)),
            model=Own(8),
        )
