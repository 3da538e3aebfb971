"""A recipe from planted data: the decisions, the file, and the mistakes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cfnseg.cli import COMMANDS, dispatch
from cfnseg.config import check, load_config
from cfnseg.errors import UserError
from cfnseg.plan import write_plan
from cfnseg.plan.held_out import part_of
from cfnseg.plan.pace import Machine, Pace, measure_pace
from cfnseg.plan.planning import batch_of, draft
from cfnseg.plan.survey import class_widths, find_objects, look, spread
from cfnseg.training.run import Run
from tests.conftest import changed

CPU = Machine(cuda=False, name="CPU", cores=2, memory=8 << 30)
GPU = Machine(cuda=True, name="GPU", cores=16, memory=80 << 30)
FAST = Pace(pixel_seconds=1e-7, pixel_bytes=2000.0, sample_seconds=0.001)
CLASSES = "0 rest 0 0 0\n1 thing 255 0 0\n"


def halves(random, size):
    """Two classes of half the image each, the border at a random place and angle."""
    mask = np.zeros(size, np.uint8)
    if random.random() < 0.5:
        mask[:, : size[1] // 2] = 1
    else:
        mask[: size[0] // 2] = 1
    return mask if random.random() < 0.5 else 1 - mask


def make(root: Path, draw=halves, size=(64, 96), train=20, val=4, classes=CLASSES) -> Path:
    """A folder data set of masks that ``draw(random, size)`` makes."""
    random = np.random.default_rng(0)
    root.mkdir()
    (root / "classes.txt").write_text(classes)
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            mask = draw(random, size)
            for kind, pixels in (("images", np.stack([mask * 99] * 3, 2)), ("labels", mask)):
                path = root / kind / split / f"s{i:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


def planned(root, tmp_path, machine=CPU, pace=FAST, hours=1.0, **settings):
    out = tmp_path / "mine.py"
    out.unlink(missing_ok=True)
    config = write_plan(str(root), out=out, machine=machine, pace=pace, hours=hours, **settings)
    assert load_config(out) == config and config.name == "mine"
    check(config)
    return config


def test_balanced_data_of_no_place(tmp_path, capsys):
    config = planned(make(tmp_path / "d"), tmp_path)
    assert config.loss.class_weights == "none" and config.data.rare == 0
    assert config.model.grid == (1, 1) and config.data.flip
    assert config.data.crop == (64, 96) and config.model.test_scale == 1
    assert "nearly balanced" in (tmp_path / "mine.py").read_text()
    assert "train.epochs" in capsys.readouterr().out


def test_rare_and_thin_classes(tmp_path):
    def poles(random, size):
        mask = np.zeros(size, np.uint8)
        column = random.integers(size[1])
        mask[10:50, column : column + 4] = 1
        return mask

    config = planned(make(tmp_path / "d", poles), tmp_path)
    assert (config.loss.class_weights, config.loss.class_weight_power) == ("median", 0.25)
    assert config.model.test_scale == 1.5  # 8 / 4 = 2, at most 1.5
    assert config.data.scale == (0.75, 2.25)
    slow = planned(tmp_path / "d", tmp_path, pace=dataclasses.replace(FAST, pixel_seconds=1.0))
    assert slow.model.test_scale == 0.25
    assert slow.train.max_steps == 0 or slow.train.epochs == 1


def test_samples_drawn_for_a_class(tmp_path):
    """A class of one image in ten, and crops that see a small part."""

    def corner(random, size):
        mask = np.zeros(size, np.uint8)
        mask[: size[0] // 2] = 2
        if random.random() < 0.1:
            mask[:40, :40] = 1
        return mask

    root = make(tmp_path / "d", corner, (480, 640), 24, 2, "0 a 0 0 0\n1 b 9 9 9\n2 c 99 0 0\n")
    config = planned(root, tmp_path)
    assert config.data.crop == (288, 384) and config.data.rare == 0.5
    wide = planned(root, tmp_path, GPU)
    assert wide.data.crop == (480, 640) and wide.data.rare == 0
    assert wide.model.encoder == "resnet50" and wide.train.precision == "bf16-mixed"


def test_the_place_decides(tmp_path):
    def sides(random, size):
        mask = np.zeros(size, np.uint8)
        mask[:, size[1] // 2 :] = 1
        mask[random.integers(size[0])] = random.integers(2)
        return mask

    root = make(tmp_path / "d", sides, classes="0 eye_left 0 0 0\n1 eye_right 255 0 0\n")
    config = planned(root, tmp_path)
    assert config.model.grid == (6, 8) and not config.data.flip


def test_few_images_and_little_memory(tmp_path):
    assert [batch_of(n, CPU) for n in (1, 3, 10, 15, 16, 400)] == [1, 1, 4, 4, 8, 8]
    config = planned(make(tmp_path / "d", train=5), tmp_path)
    assert config.train.batch == 2 and config.train.epochs == 300
    small = dataclasses.replace(CPU, memory=100 << 20)
    config = planned(make(tmp_path / "e"), tmp_path, small)
    assert config.train.batch == 8 and config.train.accumulate == 2


def test_the_time_decides_the_epochs(tmp_path):
    root = make(tmp_path / "d")
    pace = Pace(1e-5, 10.0, 0.0)  # 0.49 s a step
    short, longer = (planned(root, tmp_path, pace=pace, hours=h) for h in (0.04, 0.08))
    assert (short.train.epochs, longer.train.epochs) == (124, 249)
    assert short.train.val_every > 1


def test_no_val_split(tmp_path):
    root = make(tmp_path / "d", val=0)
    config = planned(root, tmp_path)
    assert (config.data.fold, config.data.group_by, config.data.holdout) == ("0/7", "", "")
    assert planned(root, tmp_path, holdout="s01").data.holdout == "s01"
    assert part_of([f"{drive}_{k}" for drive in range(4) for k in (7, 8)]) == {
        "fold": "0/7",
        "group_by": "_",
    }
    assert part_of(["a_1", "b_2", "c_3"]) == part_of(["x", "y"]) == {"fold": "0/7"}


def test_a_step_of_the_plan(tmp_path):
    config = planned(make(tmp_path / "d", train=8), tmp_path)
    config = changed(config, "train", max_steps=1, batch=2, pictures=0)
    config = changed(changed(config, "data", workers=0), "model", encoder_weights=None)
    Run(dataclasses.replace(config, runs=str(tmp_path / "runs"))).train()
    assert (tmp_path / "runs" / "mine" / "best.safetensors").is_file()


def test_measured_pace(folder_data):
    from cfnseg.data.dataset import open_dataset

    train, val = (open_dataset("folder", str(folder_data), split) for split in ("train", "val"))
    pace = measure_pace(changed(draft(look(train, val), CPU), "data", crop=(64, 64)), train)
    assert 0 < pace.pixel_seconds < 0.01 and pace.sample_seconds > 0 and pace.pixel_bytes >= 0


def test_objects():
    mask = np.full((40, 80), 255, np.uint8)
    mask[2:32, 5:8], mask[0:10, 40:60] = 3, 1
    assert find_objects(mask).tolist() == [[1, 200, 10], [3, 90, 3]]
    widths = class_widths([find_objects(mask)] * 10, 4)
    assert widths[[1, 3]].tolist() == [10, 3] and np.isnan(widths[[0, 2]]).all()
    assert np.isnan(class_widths([find_objects(mask)] * 9, 4)).all()
    assert spread(5, 9) == [0, 1, 2, 3, 4] and spread(101, 3) == [0, 50, 100]


def test_mistakes(tmp_path):
    def refused(part, code, *argv):
        with pytest.raises(UserError, match=part) as caught:
            dispatch(COMMANDS, "cfnseg", ["plan", *map(str, argv)])
        assert caught.value.code == code and "\n" not in str(caught.value)

    out = tmp_path / "out.py"
    refused("not found", 1, tmp_path / "nowhere", "--out", out)
    (tmp_path / "empty").mkdir()
    refused("not found", 1, tmp_path / "empty", "--out", out)
    one = make(tmp_path / "one", lambda _, size: np.zeros(size, np.uint8))
    refused("have one class, rest", 1, one, "--out", out)
    (one / "classes.txt").write_text("0 rest 0 0 0\n")
    refused("the data has 1 class", 1, one, "--out", out)
    refused("hours is 0.0", 2, one, "--hours", 0, "--out", out)
    refused("expected a file NAME.py", 2, one, "--out", tmp_path / "x.txt")
    refused("is no folder", 2, one, "--out", tmp_path / "no" / "x.py")
    assert not out.exists()
    out.write_text("mine")
    refused("was not overwritten", 2, one, "--out", out)
    assert out.read_text() == "mine"
    alone = make(tmp_path / "alone", train=1, val=0)
    refused("data.fold 0/7 matches 1 of 1 training images", 2, alone, "--out", tmp_path / "y.py")
