"""The tools as a person runs them; one clear line and the right exit code for each mistake."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cfnseg import commands, shipped
from cfnseg.config import Config, Model, check, load_config
from cfnseg.data.dataset import open_dataset
from cfnseg.errors import UserError
from cfnseg.inference.sources import image_files, infer_files, result_names
from cfnseg.lab.ablation import load_suite
from cfnseg.models.build import build_model
from cfnseg.models.weights import save_weights
from cfnseg.training.run import Run
from tests.conftest import ENCODER, REPO, run_tool


@pytest.fixture(scope="module")
def weights(folder_data, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    settings = Model(encoder=ENCODER, encoder_weights=None, width=8)
    labels = open_dataset("folder", str(folder_data), "val").labels
    torch.manual_seed(0)
    save_weights(path, build_model(settings, len(labels)), settings, labels, {"data": "folder"})
    return path


def fails(code: int, message: str, *args: object, **kwargs) -> None:
    done = run_tool(*args, **kwargs)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1, (
        done.stderr
    )


def test_usage_mistakes(tmp_path):
    train = "tools/train_seg.py"
    fails(2, "there are configs/", train, "configs/nowhere.py")
    fails(2, "which config?", train)
    (tmp_path / "empty.py").write_text("x = 1\n")
    fails(2, "defines no `config", train, tmp_path / "empty.py")
    (tmp_path / "typo.py").write_text(
        "from cfnseg.config import *\nconfig = Config(optim=Optim(lrr=1))\n"
    )
    fails(2, "unexpected keyword argument 'lrr'", train, tmp_path / "typo.py")
    fails(
        2,
        "train.batch is 0; expected 1 or more",
        train,
        "configs/shapes_cfn.py",
        "--train.batch",
        "0",
    )
    misspelt = run_tool(train, "configs/shapes_cfn.py", "--optim.lrr", "0.1")
    assert misspelt.returncode == 2
    assert "Perhaps you meant" in misspelt.stdout + misspelt.stderr
    assert "--optim.lr " in misspelt.stdout + misspelt.stderr
    listed = run_tool(train, "--help")
    assert listed.returncode == 0
    assert "--optim.weight-decay" in listed.stdout
    fails(2, "either a weights file or --predictions", "tools/eval_seg.py")


def test_data_mistakes(tmp_path, folder_data, weights):
    base = (
        "tools/train_seg.py",
        "configs/shapes_cfn.py",
        "--runs",
        tmp_path / "runs",
        "--model.encoder",
        ENCODER,
        "--model.encoder-weights",
        "None",
        "--data.workers",
        "0",
        "--data.crop",
        "64",
        "64",
        "--train.accelerator",
        "cpu",
    )
    fails(1, "not found at", *base, "--data.name", "voc", "--data.root", tmp_path / "nowhere")
    broken = tmp_path / "broken"
    shutil.copytree(folder_data, broken)
    mask = broken / "labels" / "val" / "s00.png"
    Image.fromarray(np.full((64, 80), 77, np.uint8)).save(mask)
    fails(
        1,
        "is ignored; cfnseg doctor explains such masks, and --fix NEW writes right ones",
        "tools/eval_seg.py",
        weights,
        "--root",
        broken,
        "--workers",
        "1",
    )
    Image.fromarray(np.zeros((64, 80, 3), np.uint8)).save(mask)
    fails(
        1, "the mask has colours", "tools/eval_seg.py", weights, "--root", broken, "--workers", "0"
    )
    fails(
        1,
        "has 8 classes, camvid val has 11",
        "tools/eval_seg.py",
        weights,
        "--dataset",
        "camvid",
        "--root",
        camvid(tmp_path),
    )


def camvid(tmp_path):
    root = tmp_path / "camvid"
    for kind, array in (
        ("images", np.zeros((40, 40, 3), np.uint8)),
        ("labels", np.zeros((40, 40), np.uint8)),
    ):
        (root / kind / "val").mkdir(parents=True)
        Image.fromarray(array).save(root / kind / "val" / "x.png")
    return root


def test_evaluation_of_weights_and_of_the_masks_they_make(tmp_path, folder_data, weights):
    done = run_tool(
        "tools/eval_seg.py",
        weights,
        "--root",
        folder_data,
        "--out",
        tmp_path / "a",
        "--workers",
        "0",
    )
    assert done.returncode == 0, done.stderr
    assert "mIoU" in done.stdout
    one = json.loads((tmp_path / "a" / "report.json").read_text())
    done = run_tool(
        "tools/infer.py",
        folder_data / "images" / "val",
        "--weights",
        weights,
        "--out",
        tmp_path / "masks",
    )
    assert done.returncode == 0, done.stderr
    assert str(weights) in done.stdout
    done = run_tool(
        "tools/eval_seg.py",
        "--predictions",
        tmp_path / "masks",
        "--dataset",
        "folder",
        "--root",
        folder_data,
        "--out",
        tmp_path / "b",
    )
    assert done.returncode == 0, done.stderr
    two = json.loads((tmp_path / "b" / "report.json").read_text())
    for key in ("confusion", "miou", "miou_ci95", "boundary_miou", "pixel_accuracy", "num_images"):
        assert one[key] == two[key], key
    (tmp_path / "masks" / "s03_mask.png").unlink()
    fails(
        1,
        "no prediction for 1 of 5 images: neither s03.png nor s03_mask.png",
        "tools/eval_seg.py",
        "--predictions",
        tmp_path / "masks",
        "--dataset",
        "folder",
        "--root",
        folder_data,
    )


def test_inference_names_bad_files_and_goes_on(tmp_path, weights):
    rgb = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(rgb).save(folder / "a.png")
    Image.fromarray(rgb).save(folder / "a.jpg")
    Image.fromarray(rgb[..., 0]).save(folder / "gray.png")
    (folder / "bad.jpg").write_text("nothing")
    done = run_tool(
        "tools/infer.py",
        folder,
        tmp_path / "nowhere.png",
        "--weights",
        weights,
        "--out",
        tmp_path / "out",
    )
    assert done.returncode == 1
    assert "bad.jpg: not a readable image" in done.stderr
    assert "nowhere.png: No such file" in done.stderr
    assert re.search(
        r"\n3 images in [\d.]+ s, [\d.]+ images/s; the network computed \d+% of the time\n$",
        done.stdout,
    )
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == sorted(
        f"{n}_{k}" for n in ("a.png", "a.jpg", "gray") for k in ("mask.png", "overlay.jpg")
    )
    mask = Image.open(tmp_path / "out" / "gray_mask.png")
    assert (mask.mode, mask.size) == ("P", (70, 50))
    (folder / "w").write_bytes(b"\x80\x04")
    fails(
        1,
        "corrupt or no safetensors",
        "tools/infer.py",
        folder / "a.png",
        "--weights",
        folder / "w",
    )


def test_no_two_results_share_a_name():
    files = [Path(p) for p in ("day/a.png", "night/a.png", "day/b.png", "day/c.png", "day/c.jpg")]
    assert result_names(files) == ["day_a.png", "night_a.png", "b", "c.png", "c.jpg"]
    # on a file system that ignores case the two are one file
    assert result_names([Path("x/a.png"), Path("x/A.jpg")]) == ["a.png", "A.jpg"]
    for twice in (("a.png", "a.png"), ("x/v/a.png", "y/v/a.png"), ("x/v/a.png", "y/v/A.png")):
        with pytest.raises(UserError, match="overwrite each other"):
            result_names([Path(p) for p in twice])


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(
        path
    )


def test_results_are_kept_apart_from_images(tmp_path, weights):
    folder = tmp_path / "in"
    for name in ("a.png", "b.jpg"):
        picture(folder / name)
    (tmp_path / "link").symlink_to(folder)
    for given in (folder, tmp_path / "link"):
        for out in (folder, tmp_path / "in" / ".." / "in", tmp_path / "link"):
            with pytest.raises(UserError, match="is a folder of the images"):
                infer_files([given], weights, out, "cpu")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; expected a folder"):
        infer_files([folder], weights, tmp_path / "file", "cpu")
    fails(
        2,
        "is a folder of the images",
        "tools/infer.py",
        folder,
        "--weights",
        weights,
        "--out",
        folder,
    )
    assert sorted(p.name for p in folder.iterdir()) == ["a.png", "b.jpg"]
    results = ["a_mask.png", "a_overlay.jpg", "b_mask.png", "b_overlay.jpg"]
    for out in (folder / "out", tmp_path):  # inside the folder, and its parent
        for _ in range(2):
            assert infer_files([folder], weights, out, "cpu") == 0
            assert (
                sorted(p.name for p in out.iterdir() if p.is_file() and p.name != "file") == results
            )


def test_earlier_results_in_a_folder_are_left_out(tmp_path, capsys):
    for name in (
        "a.png",
        "a.png_mask.png",
        "a.jpg",
        "a.jpg_overlay.jpg",
        "b.jpg",
        "b_mask.png",
        "in_c.png_mask.png",
        "c.png",
        "x_mask.png",
        "x_overlay.jpg",
        "face_mask.png",
        "z_overlay.jpg",
        ".a.png",
    ):
        picture(tmp_path / "in" / name)
    found = [p.name for p in image_files([tmp_path / "in"])]
    assert found == ["a.jpg", "a.png", "b.jpg", "c.png", "face_mask.png", "z_overlay.jpg"]
    assert "6 earlier results (such as a.jpg_overlay.jpg) are left out" in capsys.readouterr().out
    assert image_files([tmp_path / "in" / "b_mask.png"]) == [tmp_path / "in" / "b_mask.png"]


def test_weights_that_are_not_there_are_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "WEIGHTS", {tmp_path / "camvid_cfn.safetensors": "CamVid"})
    with pytest.raises(
        UserError, match=r"no shipped weights: not found at .*; give a weights file \(--weights\)"
    ) as error:
        commands.infer((Path("x.png"),), out=tmp_path / "out")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        " ",
        "../x",
        "a/b",
        "/abs",
        "a\\b",
        "a\0b",
        "a\nb",
        "x" * 300,
        "é" * 101,
        "\udcff",
    ],
)
def test_a_runs_name_is_one_folder_name(name):
    with pytest.raises(UserError, match="name is .*; expected the name of one folder") as error:
        check(Config(name=name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x", "cfn-s0", "größe 3", "...x", "a.b", "-x"])
def test_names_that_runs_may_have(name):
    check(Config(name=name))


def test_a_runs_folder_that_can_be_none(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for runs in (
        tmp_path / "file",
        tmp_path / "file" / "runs",
        tmp_path / "dangling",
        "",
        "a\0b",
        "x" * 5000,
    ):
        with pytest.raises(UserError, match="runs is .*; expected a folder"):
            check(Config(name="x", runs=str(runs)))
    check(Config(name="x", runs=str(tmp_path / "new" / "runs")))


def test_where_a_run_could_not_go_is_one_line(tmp_path, tiny):
    (tmp_path / "file").write_text("weights of mine")
    replace, train = dataclasses.replace, tiny.train
    wrong = [
        (replace(tiny, name="../x"), "name is '../x'"),
        (replace(tiny, runs=str(tmp_path / "file")), "runs is"),
        (replace(tiny, data=replace(tiny.data, root=str(tmp_path / "nowhere"))), "not found at"),
        (
            replace(tiny, data=replace(tiny.data, root=str(tmp_path / "file"))),
            "not found at .*file",
        ),
    ]
    for init, message in (
        ("", "is a folder"),
        ("nowhere", "no weights file"),
        ("file", "corrupt or no safetensors"),
    ):
        wrong.append((replace(tiny, train=replace(train, init=str(tmp_path / init))), message))
    for config, message in wrong:
        with pytest.raises(UserError, match=message) as error:
            Run(config)
        assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


CONFIGS = sorted(p.name for p in (REPO / "configs").glob("*.py"))


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.startswith("ablation_")])
def test_every_suite_loads_and_says_its_command(path):
    suite = load_suite(REPO / "configs" / path)
    for name in suite.systems:
        config = suite.run(name, 3, Path("x"))
        check(config)
        build_model(config.model, suite.classes, pretrained=False)
        assert config.train.seed == 3 and config.name == f"{name}-s3"
    text = (REPO / "configs" / path).read_text()
    assert f"cfnseg bench ablation {suite.name} " in text
    assert len(text.splitlines()) < 80


@pytest.mark.parametrize("path", [p for p in CONFIGS if not p.startswith("ablation_")])
def test_every_config_loads_and_says_its_command(path):
    config = load_config(REPO / "configs" / path)
    assert isinstance(config, Config)
    assert config.name == path.removesuffix(".py")
    text = (REPO / "configs" / path).read_text()
    verb = "classify" if config.model.level == "image" else "train"
    assert re.search(rf"^ *(torchrun .* -m )?cfnseg {verb} {config.name}\b", text, re.M)
    assert len(shipped.about(REPO / "configs" / path)) <= 79
    assert len(text.splitlines()) < 60


@pytest.mark.slow
def test_voc_config_on_real_files_by_overrides_alone(real_data, tmp_path):
    done = run_tool(
        "tools/train_seg.py",
        "configs/voc_cfn.py",
        "--data.name",
        "voc",
        "--data.root",
        real_data / "voc_sample",
        "--model.encoder",
        ENCODER,
        "--model.encoder-weights",
        "None",
        "--train.max-steps",
        "3",
        "--train.batch",
        "4",
        "--train.precision",
        "32-true",
        "--data.crop",
        "128",
        "128",
        "--data.workers",
        "2",
        "--runs",
        tmp_path,
        "--train.accelerator",
        "cpu",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "voc_cfn" / "report" / "report.json").read_text())
    assert report["num_images"] == len(
        open_dataset("voc", str(real_data / "voc_sample"), "val").names
    )
    assert len(report["classes"]) == 21


def test_shipped_weights_on_a_real_image(real_data, tmp_path):
    path = shipped.shipped_weights()
    assert path.name == "camvid_cfn.safetensors" and path.stat().st_size < 20e6
    image = sorted((real_data / "camvid" / "images" / "val").iterdir())[0]
    done = run_tool("tools/infer.py", image, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no --weights: camvid_cfn.safetensors is used, trained on CamVid" in done.stdout
    assert "road" in done.stdout
    mask = np.asarray(Image.open(tmp_path / f"{image.stem}_mask.png"))
    truth = np.asarray(Image.open(real_data / "camvid" / "labels" / "val" / f"{image.stem}.png"))
    assert (mask == truth)[truth != 11].mean() > 0.85


def test_albumentationsx_is_refused(monkeypatch):
    import importlib.metadata

    from cfnseg.data import transforms

    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "3.0" if name == "albumentationsx" else "0"
    )
    with pytest.raises(UserError, match="AGPL"):
        transforms._refuse_agpl()
