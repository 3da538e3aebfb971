"""Classification training: the shared loop, exact resume, loss, evaluation, tools."""

import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import top_k_accuracy_score
from torch import nn

from cfnseg.config import Config, Data, Loss, Model, Optim, Train
from cfnseg.data.formats.class_folders import open_images
from cfnseg.errors import UserError
from cfnseg.evaluation.classification import evaluate_images
from cfnseg.inference.predictor import Predictor
from cfnseg.metrics.ranking import top_errors
from cfnseg.models.build import build_model
from cfnseg.models.weights import load
from cfnseg.training.loss import side_weight
from cfnseg.training.optim import build_optimizer, schedule
from cfnseg.training.run import Run
from cfnseg.training.tasks import classification, forward
from cfnseg.workflows import score_weights, train
from tests.conftest import ENCODER, run_tool


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> Path:
    """An image folder of six classes, each a noisy colour, 32 x 32: 8 to train, 3 to test each."""
    root, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    base = rng.integers(0, 256, (6, 3))
    for split, count in (("train", 8), ("test", 3)):
        for c in range(6):
            folder = root / split / f"class{c}"
            folder.mkdir(parents=True)
            for i in range(count):
                image = np.clip(base[c] + rng.normal(0, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / f"{i}.png"), image)
    return root


@pytest.fixture
def small(colours, tmp_path) -> Config:
    """A run of seconds on the test backbone."""
    return Config(
        model=Model(
            level="image",
            encoder=ENCODER,
            encoder_weights=None,
            width=16,
            start="mean",
            dropout=0.1,
        ),
        data=Data(
            name="image_folder",
            root=str(colours),
            val_split="test",
            crop=(32, 32),
            scale=(0.6, 1.0),
            workers=0,
        ),
        optim=Optim(name="adamw", lr=3e-3, weight_decay=0.01, ema=0.9),
        train=Train(epochs=3, batch=6, accelerator="cpu", save_every=2),
        name="small",
        runs=str(tmp_path / "runs"),
    )


def test_a_run_learns_and_leaves_everything(small):
    folder = train(replace(small, train=replace(small.train, epochs=12)))
    report = json.loads((folder / "report" / "report.json").read_text())
    assert report["top1_error"] < 0.4  # chance is 0.83
    assert report["num_images"] == 18 and len(report["classes"]) == 6
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert sum("val_top1_error" in r for r in rows) == 12
    loaded = load(folder / "best.safetensors")
    assert loaded.labels.names == [f"class{c}" for c in range(6)]
    assert loaded.score["top1_error"] == pytest.approx(report["top1_error"], abs=1e-4)
    assert loaded.score["crop"] == [32, 32]
    with pytest.raises(UserError, match="makes no masks"):
        Predictor(folder / "best.safetensors")
    again = score_weights(
        folder / "best.safetensors",
        "",
        small.data.root,
        "test",
        folder / "again",
        0,
        "cpu",
        level="image",
    )
    assert again["top1_error"] == report["top1_error"] and again["confusion"] == report["confusion"]


@pytest.mark.parametrize("name", ["cfn", "dsn"])
def test_resume_is_exact(small, name, tmp_path):
    config = replace(small, model=replace(small.model, name=name))
    whole = Run(replace(config, runs=str(tmp_path / "whole")))
    whole.train()
    cut = Run(replace(config, runs=str(tmp_path / "cut")))
    old = cut._step

    def stop_after(batch):
        cut.stopping.asked = signal.SIGTERM if cut.state["step"] == 9 else 0
        return old(batch)

    cut._step = stop_after
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    resumed = Run(replace(config, runs=str(tmp_path / "cut")), resume=True)
    assert resumed.state["step"] == 10
    resumed.train()
    for a, b in ((whole.network, resumed.network), (whole.ema, resumed.ema)):
        assert all(
            torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values())
        )
    log = [Path(tmp_path / d / "small" / "log.jsonl").read_text() for d in ("whole", "cut")]
    assert log[0] == log[1]


def test_loss_is_cross_entropy_and_that_of_the_companions(small):
    task, net = (
        classification(small),
        build_model(replace(small.model, name="dsn"), 6, pretrained=False).train(),
    )
    batch = {
        "image": torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8),
        "target": torch.tensor([0, 5, 2, 2]),
    }
    torch.manual_seed(0)
    loss = task.loss(forward(net, batch), batch, side=0.25)
    torch.manual_seed(0)
    output = net(batch["image"])
    parts = [F.cross_entropy(x, batch["target"]) for x in (output.image, *output.side)]
    assert len(parts) == 5
    torch.testing.assert_close(loss, parts[0] + 0.25 * sum(parts[1:]))
    assert [side_weight(net, Loss(side=0.4), p) for p in (0, 0.5, 1)] == pytest.approx(
        [0.4, 0.2, 0]
    )


def test_scores_are_those_of_the_model_whatever_the_workers_and_shares(small):
    data = open_images("image_folder", small.data.root, "test")
    net = build_model(small.model, 6, pretrained=False)
    result = evaluate_images(net, data, small.data, workers=2)
    images = torch.from_numpy(np.stack([data.image(i) for i in range(18)])).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = net.eval()(images).image
    np.testing.assert_allclose(result.scores, logits.softmax(1).numpy(), rtol=1e-4, atol=1e-6)
    assert result.loss == pytest.approx(
        F.cross_entropy(logits, torch.from_numpy(data.targets)).item(), rel=1e-5
    )
    assert net.training is False


def test_top_errors_against_scikit_learn():
    rng = np.random.default_rng(0)
    scores, targets = rng.random((200, 12)), rng.integers(0, 12, 200)
    one, five = top_errors(scores, targets)
    assert one == pytest.approx(
        1 - top_k_accuracy_score(targets, scores, k=1, labels=range(12)), abs=1e-12
    )
    assert five == pytest.approx(
        1 - top_k_accuracy_score(targets, scores, k=5, labels=range(12)), abs=1e-12
    )


def test_top_errors_give_nothing_for_ties_or_nan():
    assert top_errors(np.ones((4, 3)), np.array([0, 1, 2, 0])) == (1, 0)
    assert top_errors(np.full((4, 9), np.nan), np.array([0, 1, 2, 0])) == (1, 1)
    assert all(math.isnan(e) for e in top_errors(np.zeros((0, 3)), np.zeros(0, int)))


def test_the_authors_learning_rates():
    """Convolutions x1 and their biases x2, LC weights x0.1 and bias x0.2, no decay on biases."""
    settings = Model(
        level="image", encoder="cifar_net", width=192, start="mean", fusion_norm="none"
    )
    net = build_model(settings, 10)
    optimizer = build_optimizer(net, Optim(lr=0.1, weight_decay=1e-4, fusion_lr=0.1, bias_lr=2.0))
    found = {
        id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]
    }
    rates = {name: found[id(p)] for name, p in net.named_parameters()}
    assert len(rates) == len(found)
    for name, (rate, decay) in rates.items():
        expected = 0.1 * (0.1 if "fusion" in name else 1) * (2 if name.endswith("bias") else 1)
        assert rate == pytest.approx(expected), name
        assert decay == (0 if name.endswith("bias") else 1e-4), name


def test_norms_are_no_biases():
    net = build_model(Model(encoder=ENCODER, encoder_weights=None, width=8), 3)
    optimizer = build_optimizer(net, Optim(lr=1.0, bias_lr=2.0, weight_decay=0.1))
    found = {
        id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]
    }
    norm = net.pixel.refine[0].across[1]
    assert isinstance(norm, nn.BatchNorm2d) and found[id(norm.bias)] == found[id(norm.weight)] == (
        1.0,
        0.0,
    )
    assert found[id(net.pixel.predictors[0][1].bias)] == (2.0, 0.0)


def test_step_schedule():
    settings = Optim(schedule="step", drops=(1 / 3, 2 / 3), warmup=0.0)
    assert [schedule(s, 120_000, settings) for s in (0, 39_999)] == [1, 1]
    assert schedule(40_000, 120_000, settings) == pytest.approx(0.1)
    assert schedule(119_999, 120_000, settings) == pytest.approx(0.01)


def test_tools(small, colours, tmp_path):
    config = tmp_path / "colours.py"
    config.write_text(f"""
from cfnseg.config import Config, Data, Model, Train
config = Config(model=Model(level="image", encoder={ENCODER!r}, encoder_weights=None, width=16,
                            start="mean"),
                data=Data(name="image_folder", crop=(32, 32), holdout="12", workers=0),
                train=Train(max_steps=4, batch=6, accelerator="cpu"))
""")
    done = run_tool(
        "tools/train_cls.py", config, "--data.root", colours, "--runs", tmp_path / "runs"
    )
    assert done.returncode == 0, done.stderr
    assert "36 training and 12 validation images, 6 classes" in done.stdout
    weights = tmp_path / "runs" / "colours" / "best.safetensors"
    scored = run_tool("tools/eval_cls.py", weights, "--root", colours, "--device", "cpu")
    assert scored.returncode == 0 and "18 images" in scored.stdout, scored.stderr
    wrong = run_tool("tools/eval_seg.py", weights, "--root", colours)
    assert wrong.returncode == 2 and "tools/eval_cls.py" in wrong.stderr
    wrong = run_tool("tools/train_seg.py", config)
    assert wrong.returncode == 2 and "train it with tools/train_cls.py" in wrong.stderr
    table = run_tool(
        "tools/compare_encodings.py",
        weights,
        "--root",
        colours,
        "--train-images",
        24,
        "--test-images",
        12,
        "--dimensions",
        4,
    )
    assert table.returncode == 0, table.stderr
    assert "| Fisher vector |" in table.stdout and "| fused CFN feature | 16 |" in table.stdout


def test_level_and_data_must_agree(small):
    with pytest.raises(UserError, match="data.name is camvid; expected one of cifar10"):
        Run(replace(small, data=replace(small.data, name="camvid")))
    with pytest.raises(
        UserError, match="data.name is image_folder; expected a segmentation data set"
    ):
        Run(replace(small, model=replace(small.model, level="pixel")))
