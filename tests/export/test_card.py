"""The card of a hub's page: what the hub's own classes read of it, and what people read."""

import json
import os
import shutil
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from cfnseg.config import Model, load_config
from cfnseg.config_values import to_dict
from cfnseg.data.formats.shapes import ShapesDataset
from cfnseg.data.labels import ClassNames
from cfnseg.export.card import model_card
from cfnseg.export.origin import find_origin
from cfnseg.models.build import build_model
from cfnseg.models.weights import load, save_weights
from tests.conftest import ENCODER, REPO

SCORE = {"data": "shapes", "split": "val", "images": 100, "miou": 0.5, "step": 9, "steps": 90}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with the report on the model of the wheel, whose classes it has."""
    folder = tmp_path_factory.mktemp("run")
    settings = Model(encoder=ENCODER, encoder_weights=None, width=8)
    labels = ShapesDataset("val").labels
    path = folder / "shapes_cfn.safetensors"
    save_weights(path, build_model(settings, len(labels)), settings, labels, SCORE)
    (folder / "report").mkdir()
    shutil.copyfile(REPO / "docs/shapes_val/report.json", folder / "report/report.json")
    config = replace(
        load_config("shapes_cfn"),
        model=settings,
        data=replace(load_config("shapes_cfn").data, root="/home/anna/secret place"),
        runs="/home/anna/runs",
        train=replace(load_config("shapes_cfn").train, init="/home/anna/start.safetensors"),
    )
    home = {"cfnseg": "0.2.0", "torch": "2.7", "device": "CPU, 2 cores", "command": "/home/anna/x"}
    (folder / "config.json").write_text(json.dumps(to_dict(config) | {"environment": home}))
    return folder


@pytest.fixture
def copied(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run") / "shapes_cfn.safetensors"


def card(path, license="", weights=None):
    """The card as the hub's own class reads it, and the notes."""
    weights = weights or load(path)
    origin = find_origin(path, weights)
    return ModelCard(model_card("anna/net", weights, origin, license)), origin.notes


def test_what_the_hub_reads(run):
    data = card(run / "shapes_cfn.safetensors", "cc-by-nc-4.0")[0].data
    assert (data.license, data.library_name, data.pipeline_tag, data.model_name) == (
        "cc-by-nc-4.0",
        "cfnseg",
        "image-segmentation",
        "net",
    )
    main, edges, pixels = data.eval_results
    assert (main.metric_type, main.metric_value) == ("mean_iou", 85.8)
    assert main.metric_name == "mIoU (95 % interval 83.7 to 87.6)"
    assert (main.dataset_name, main.dataset_split) == ("shapes", "val")
    assert edges.metric_name == "boundary mIoU (95 % interval 78.4 to 82.2)"
    assert (edges.metric_value, pixels.metric_value) == (80.4, 97.4)


def test_what_people_read(run):
    page, notes = card(run / "shapes_cfn.safetensors")
    text = page.text
    best = (
        "**mIoU 85.8 (95 % interval 83.7 to 87.6) over 8 of 8 classes on shapes val, 100 images**"
    )
    assert best in text
    assert "| shapes | val | 100 | 85.8 (83.7 to 87.6) | 80.4 (78.4 to 82.2) | 97.4 |" in text
    assert "The score on val chose the weights: those of step 9 of 90." in text
    assert "| sky | 0 | 120 180 235 | 97.8 (97.5 to 98.2) |" in text
    assert "cfnseg infer photo.jpg --weights hf:anna/net" in text
    assert "cfnseg eval hf:anna/net\n" in text
    assert 'cfnseg.Predictor("hf:anna/net")' in text
    code = text.partition("## Training\n\n```\n")[2].partition("\n```")[0]
    assert code.startswith("cfnseg train shapes_cfn --model.encoder test_efficientnet")
    assert all(len(line) <= 80 for line in code.splitlines()) and code.count(" \\\n    --") >= 1
    assert "--train.init start.safetensors" in text
    assert "--data.root DIR" in text and "/home" not in str(page) and "secret" not in str(page)
    assert "cfnseg 0.2.0, torch 2.7, CPU, 2 cores." in text
    assert page.data.license == "unknown" and "Unknown. Ask who published" in text
    assert [note.partition(":")[0] for note in notes] == ["scores", "training"]


def test_two_reports_and_their_inference(copied):
    report = json.loads((copied.parent / "report" / "report.json").read_text())
    for split, more in (("val", {}), ("test", {"flip": "True"})):
        folder = copied.parent / f"shapes_cfn_{split}"
        folder.mkdir()
        facts = report["facts"] | {"split": split} | more
        (folder / "report.json").write_text(json.dumps(report | {"facts": facts, "miou": 0.5}))
    page, notes = card(copied)
    rows = [line for line in page.text.splitlines() if line.startswith("| shapes |")]
    assert [row.split(" | ")[1:4] for row in rows] == [
        ["val", "plain", "100"],
        ["test", "flip True", "100"],
    ]
    assert "| Class | Id | Colour | IoU val | IoU test |" in page.text
    names = [r.metric_name for r in page.data.eval_results if r.dataset_split == "test"]
    assert names[0] == "mIoU (95 % interval 83.7 to 87.6, flip True)"
    assert len(page.data.eval_results) == 6 and len(notes) == 4


def test_a_report_of_other_weights_is_left_out(copied):
    report = copied.parent / "report" / "report.json"
    old, weights = copied.stat().st_mtime - 3600, load(copied)
    os.utime(report, (old, old))
    page, notes = card(copied, weights=weights)
    assert f"{report} is older than shapes_cfn.safetensors and was left out" in notes[0]
    assert "no report next to" in notes[1]
    assert "**mIoU 50.0 on shapes val, 100 images**" in page.text and "interval" not in page.text
    assert [r.metric_value for r in page.data.eval_results] == [50.0]
    os.utime(report)
    content = json.loads(report.read_text())
    for other in (
        content | {"facts": content["facts"] | {"weights": "other.safetensors"}},
        content | {"classes": content["classes"][1:]},
        {"facts": 3},
        [],
    ):
        report.write_text(json.dumps(other))
        assert "50.0" in card(copied, weights=weights)[0].text
    report.write_text("{")
    (copied.parent / "config.json").write_text("[1]")
    page, notes = card(copied, weights=weights)
    assert "50.0" in page.text and "## Training" not in page.text and len(notes) == 1


def test_a_run_of_other_weights_is_left_out(copied):
    config = json.loads((copied.parent / "config.json").read_text())
    config["model"]["width"] = 16
    (copied.parent / "config.json").write_text(json.dumps(config))
    assert "## Training" not in card(copied)[0].text


def test_weights_of_which_nothing_is_known(tmp_path):
    path, settings = tmp_path / "w.safetensors", Model(encoder=ENCODER, encoder_weights=None)
    labels = ShapesDataset("val").labels
    save_weights(path, build_model(settings, 8), settings, labels, {"miou": "high"})
    page, _ = card(path)
    assert page.data.eval_results is None and "## Scores" not in page.text
    assert "trained on" not in page.text and "cfnseg eval hf:anna/net --root DIR" in page.text


def test_classification(tmp_path):
    path = tmp_path / "best.safetensors"
    settings = Model(level="image", encoder=ENCODER, encoder_weights=None, width=8)
    score = {"data": "image_folder", "split": "val", "images": 9, "top1_error": 0.25}
    save_weights(path, build_model(settings, 2), settings, ClassNames(["a|b", "c"]), score)
    page, _ = card(path)
    assert page.data.pipeline_tag == "image-classification"
    assert "**accuracy 75.0 on image_folder val, 9 images**" in page.text
    (tmp_path / "report").mkdir()
    report = {
        "facts": {"data": "image_folder", "split": "test", "weights": str(path)},
        "classes": [{"name": "a|b", "error": 0.2}, {"name": "c", "error": None}],
        "num_images": 10,
        "top1_error": 0.2,
        "top1_error_ci95": [0.1, 0.4],
        "top5_error": 0.0,
    }
    (tmp_path / "report" / "report.json").write_text(json.dumps(report))
    page, _ = card(path)
    assert "| image_folder | test | 10 | 80.0 (60.0 to 90.0) | 100.0 |" in page.text
    assert "| a\\|b | 80.0 |" in page.text and "| c | - |" in page.text
    main = page.data.eval_results[0]
    assert (main.metric_name, main.metric_value) == (
        "accuracy (95 % interval 60.0 to 90.0)",
        80.0,
    )
    code = page.text.partition("```python\n")[2].partition("```")[0]
    compile(code, "card", "exec")
