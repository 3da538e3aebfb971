"""Sigmoid outputs from training to masks: classes that overlap, and their thresholds."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import cfnseg
from cfnseg.config import Data, Model, Optim, Train, check
from cfnseg.data.dataset import Layers, read_truth
from cfnseg.errors import Stopped, UserError
from cfnseg.evaluation.overlap import evaluate_layers, layer_boundaries
from cfnseg.inference.layer_masks import segment_layers
from cfnseg.inference.settings import Inference
from cfnseg.metrics.boundary import boundary_counts
from cfnseg.metrics.dice import GRID, dice_of, mask_counts
from cfnseg.models.build import build_model
from cfnseg.models.weights import load, save_weights
from cfnseg.training.run import Run
from tests.conftest import ENCODER, changed
from tests.inference.stubs import Constant, Place
from tests.overlapping import LABELS, Scenes, write_folder
from tests.test_own_model import Own


class OneID(Scenes):
    """The same scenes with one class a pixel, the disc over the stripe."""

    labels = cfnseg.LabelMap([cfnseg.Label(0, "ground", (0, 0, 0)), *LABELS.labels])

    def ids(self, index):
        layers = super().ids(index)
        return np.where(layers[..., 1], 2, layers[..., 0]).astype(np.uint8)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overlap")
    root = write_folder(folder / "data", {"train": 16, "val": 5, "test": 4})
    return cfnseg.Config(
        model=Model(encoder=ENCODER, encoder_weights=None, width=16, grid=(1, 1), output="sigmoid"),
        data=Data(
            name="folder", root=str(root), crop=(48, 64), scale=(1, 1), photometric=0, workers=0
        ),
        optim=Optim(name="adamw", lr=3e-3),
        train=Train(max_steps=60, batch=4, accelerator="cpu", val_every=20, pictures=2),
        name="overlap",
        runs=str(folder / "runs"),
    )


@pytest.fixture(scope="module")
def run(config):
    return cfnseg.train(config)


def overlap_iou(masks: list[np.ndarray], truths: list[np.ndarray]) -> float:
    """IoU of the pixels that are of both classes."""
    found, true = (np.stack([one.all(0) for one in some]) for some in (masks, truths))
    return (found & true).sum() / (found | true).sum()


def test_it_learns_overlaps_and_softmax_cannot(config, run):
    data = Scenes(4, 2000)
    truths = [data.ids(i).transpose(2, 0, 1) == 1 for i in range(4)]
    predict = cfnseg.Predictor(run / "best.safetensors", "cpu")
    masks = [predict(data.image(i)).mask for i in range(4)]
    assert masks[0].shape == (2, 48, 64) and masks[0].dtype == bool
    assert overlap_iou(masks, truths) > 0.6
    single = changed(config, "model", output="softmax")
    single = cfnseg.train(
        dataclasses.replace(single, name="single"), data=(OneID(16), OneID(5, 1000))
    )
    predict = cfnseg.Predictor(single / "best.safetensors", "cpu")
    masks = [np.stack([(m := predict(data.image(i)).mask) == 1, m == 2]) for i in range(4)]
    assert overlap_iou(masks, truths) == 0


def test_the_report(run):
    report = json.loads((run / "report" / "report.json").read_text())
    weights = load(run / "best.safetensors")
    assert report["output"] == "sigmoid" and report["thresholds_tuned_here"]
    assert report["thresholds_tuned_on"] == "folder val"
    assert report["miou"] == pytest.approx(weights.score["miou"], abs=1e-4)
    assert report["mean_dice"] == pytest.approx(weights.score["dice"], abs=1e-4)
    for row, threshold in zip(report["classes"], weights.thresholds):
        assert row["threshold"] == threshold and threshold in report["grid"]
        assert row["dice"] == pytest.approx(2 * row["iou"] / (1 + row["iou"]))
        assert row["dice"] == pytest.approx(max(row["dice_by_threshold"]), abs=1e-4)
        assert row["boundary_iou"] < row["iou"]
    assert report["image_dice"] == pytest.approx(np.mean([row["dice"] for row in report["images"]]))
    low, high = report["image_dice_ci95"]
    assert low <= report["image_dice"] <= high
    text, page = ((run / "report" / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert "The thresholds were tuned on these images" in text and "Image Dice" in text
    assert "Mistakes" not in text and "pixel accuracy" not in page and 'class="errors"' in page
    assert (run / "pictures" / "step_000060.jpg").is_file()


def test_on_other_images_the_report_says_where_thresholds_are_from(run, config, tmp_path):
    from cfnseg.workflows import score_weights

    best, root = run / "best.safetensors", config.data.root
    report = score_weights(best, "", root, "test", tmp_path / "r", 0, "cpu", Inference(flip=True))
    assert not report["thresholds_tuned_here"] and report["facts"]["flip"] == "True"
    text = (tmp_path / "r" / "report.md").read_text()
    assert "tuned on folder val." in text and "too high" not in text
    with pytest.raises(UserError, match="--explain-metric takes softmax outputs alone"):
        score_weights(best, "", root, "test", tmp_path / "r", 0, "cpu", explain=True)


def test_stopped_and_resumed_it_ends_in_the_same_bits(config, monkeypatch):
    ends = []
    for name, stop in (("whole", 0), ("parts", 3)):
        own = dataclasses.replace(changed(config, "train", max_steps=6), name=name)
        run, step = Run(own), Run._step

        def stopping(self, batch, stop=stop, step=step):
            rate = step(self, batch)
            self.stopping.asked = 15 * (self.state["step"] + 1 == stop)
            return rate

        monkeypatch.setattr(Run, "_step", stopping)
        if stop:
            with pytest.raises(Stopped):
                run.train()
            monkeypatch.undo()
            run = Run(own, resume=True)
        run.train()
        monkeypatch.undo()
        ends.append((run.network.state_dict(), load(run.folder / "best.safetensors").score))
    assert all(torch.equal(value, ends[1][0][key]) for key, value in ends[0][0].items())
    assert ends[0][1] == ends[1][1]
    with pytest.raises(UserError, match=r"--resume: model\.output, .* differs"):
        Run(changed(own, "model", output="softmax"), resume=True, data=(OneID(16), OneID(5, 1000)))


def test_weights_keep_thresholds_and_masks(run, tmp_path):
    weights = load(run / "best.safetensors")
    save_weights(
        tmp_path / "again.safetensors", weights.model, weights.settings, LABELS, weights.score
    )
    again = load(tmp_path / "again.safetensors")
    assert (again.thresholds == weights.thresholds).all()
    image = Scenes(1, 2000).image(0)
    one, two = (cfnseg.Predictor(w, "cpu") for w in (weights, again))
    assert (one(image).mask == two(image).mask).all()
    chances = one.probabilities(image)
    limits = weights.thresholds.astype(np.float32)[:, None, None]
    assert chances.shape == (2, 48, 64) and ((chances >= limits) == one(image).mask).all()
    confidence = np.where(one(image).mask, chances, 1 - chances).min(0)
    assert one(image).confidence == pytest.approx(confidence)
    for wrong in ([0.5], [0.5, 2.0], "0.5", [0.5, None]):
        score = weights.score | {"thresholds": wrong}
        save_weights(tmp_path / "wrong.safetensors", weights.model, weights.settings, LABELS, score)
        with pytest.raises(UserError, match=r"score\.thresholds in the cfnseg header"):
            load(tmp_path / "wrong.safetensors")
    score = {"data": "folder"}
    save_weights(tmp_path / "none.safetensors", weights.model, weights.settings, LABELS, score)
    assert load(tmp_path / "none.safetensors").thresholds.tolist() == [0.5, 0.5]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(Model(encoder=ENCODER, encoder_weights=None, width=8), 2).eval()


@pytest.mark.parametrize(
    "inference", [Inference(), Inference(window=(32, 32), scales=(1.0, 1.5), flip=True)]
)
def test_counts_are_those_of_the_masks(model, inference):
    data, limits = Layers(Scenes(3)), np.array([0.4, 0.6])
    result = evaluate_layers(
        model, data, thresholds=limits, workers=0, details=True, inference=inference
    )
    for i in range(3):
        image, truth = torch.from_numpy(data.image(i)).permute(2, 0, 1), read_truth(data, i)
        masks = segment_layers(model, image, limits, inference).masks
        assert (result.counts[i] == mask_counts(masks, torch.from_numpy(truth))).all()
        assert (result.boundary[i] == layer_boundaries(truth, masks.numpy())).all()
    tuned = evaluate_layers(model, data, workers=0, inference=inference)
    assert (tuned.grid == result.grid).all() and tuned.loss == result.loss
    at = [int(np.abs(GRID - t).argmin()) for t in tuned.thresholds]
    sums = np.stack([tuned.grid[k, :, c] for c, k in enumerate(at)], 1)
    assert (tuned.counts.sum(0) == sums).all()
    direct = evaluate_layers(
        model, data, thresholds=tuned.thresholds, workers=0, inference=inference
    )
    assert (direct.counts == tuned.counts).all()


def test_tuned_thresholds_beat_a_half_on_the_hold_out():
    """A network of constant, low probability: half finds nothing, the tuned one everything."""
    data = Scenes(4)
    model = Constant((-1.5, -2.5), 4)
    tuned = evaluate_layers(model, data, workers=0)
    half = evaluate_layers(model, data, thresholds=np.full(2, 0.5), workers=0)
    assert half.dice == 0 and tuned.dice > 0.15
    assert tuned.thresholds.tolist() == pytest.approx([0.15, 0.05])
    assert (dice_of(tuned.counts.sum(0)) >= dice_of(half.counts.sum(0))).all()


def test_views_average_the_sigmoid():
    """Of a network that sees brightness alone every view is the same."""
    image = torch.full((3, 40, 56), 2, dtype=torch.uint8)
    limits = np.full(3, 0.5)
    logits = []
    for inference in (Inference(), Inference(scales=(1.0, 2.0), flip=True)):
        kept = []
        segment_layers(
            Place(), image, limits, inference, each=lambda _, x, kept=kept: kept.append(x)
        )
        logits.append(torch.cat(kept, 1)[2])
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-3, atol=1e-3)


def test_boundaries_are_of_each_class_alone():
    layers, masks = np.zeros((40, 40, 2), np.uint8), np.zeros((2, 40, 40), bool)
    layers[5:25, 5:25, 0] = layers[10:30, 10:30, 1] = 1
    masks[0, 5:25, 5:25] = masks[1, 12:30, 10:30] = True
    found = layer_boundaries(layers, masks)
    alone = [boundary_counts(layers[..., c], masks[c].astype(np.uint8), 2)[:, 1] for c in (0, 1)]
    assert found.tolist() == np.stack(alone, 1).tolist()
    assert found[0, 0] == found[1, 0] == found[2, 0] > 0 and found[0, 1] < found[1, 1]


@pytest.mark.parametrize(
    "section, fields, message",
    [
        ("loss", {"ohem": 0.5}, r"loss\.ohem is 0\.5; expected 0 with sigmoid outputs"),
        ("loss", {"class_weights": "median"}, r"loss\.class_weights is median; expected none with"),
        ("loss", {"label_smoothing": 0.1}, r"loss\.label_smoothing is 0\.1; expected 0 with"),
        ("model", {"level": "image"}, r"data\.name is folder"),
    ],
)
def test_settings_that_do_not_go_with_it(config, section, fields, message):
    with pytest.raises(UserError, match=message):
        check(changed(config, section, **fields))


def test_softmax_on_overlapping_labels_is_one_line(config):
    own = dataclasses.replace(changed(config, "model", output="softmax"), name="wrong")
    with pytest.raises(UserError, match=r"is a folder with a mask for each class.*sigmoid"):
        cfnseg.train(own)


def test_a_model_and_a_loss_of_ones_own(config):
    def loss(output, batch):
        up = F.interpolate(output.pixel, batch["mask"].shape[1:3], mode="bilinear")
        return F.binary_cross_entropy_with_logits(up, batch["mask"].permute(0, 3, 1, 2).float())

    own = dataclasses.replace(changed(config, "train", max_steps=2), name="own")
    run = cfnseg.train(own, model=Own(2), loss=loss)
    weights = load(run / "best.safetensors", Own(2))
    assert cfnseg.Predictor(weights, "cpu")(Scenes(1).image(0)).mask.shape == (2, 48, 64)


def test_one_foreground_class(config):
    """The binary case: C is 1, of masks of 0 and 1 without a line for the background."""

    class Binary(Scenes):
        labels = cfnseg.LabelMap([cfnseg.Label(1, "disc", (0, 0, 255))])

        def ids(self, index):
            return super().ids(index)[..., 1]

    own = dataclasses.replace(changed(config, "train", max_steps=3), name="binary")
    run = cfnseg.train(own, data=(Binary(8), Binary(3, 1000)))
    result = cfnseg.Predictor(run / "best.safetensors", "cpu")(Binary(1).image(0))
    assert result.mask.shape == (1, 48, 64) and list(result.present) == ["disc"]
    report = json.loads((run / "report" / "report.json").read_text())
    assert len(report["classes"]) == 1 and report["num_images"] == 3
