"""An export is data as it is: it trains, is held out, evaluated and examined without a copy."""

import json
from dataclasses import replace

import numpy as np
import pytest

import cfnseg
from cfnseg.config import Data
from cfnseg.convert.converting import convert_export
from cfnseg.data.dataset import Subset, fingerprint, hold_out, read_sample, shared_files, sources
from cfnseg.errors import UserError
from tests.conftest import run_tool
from tests.convert.test_converting import coco


def test_it_trains_and_is_scored_like_its_converted_copy(tmp_path, tiny):
    source, copy = coco(tmp_path / "in", 10), tmp_path / "out"
    convert_export("coco", source, copy)
    scores = []
    for name, root in (("coco_json", source), ("folder", copy)):
        data = replace(tiny.data, name=name, root=str(root))
        config = replace(tiny, name=name, data=data, train=replace(tiny.train, batch=2, epochs=1))
        folder = cfnseg.train(config)
        report = json.loads((folder / "report" / "report.json").read_text())
        scores.append((report["miou"], report["classes"]))
    assert scores[0] == scores[1]
    done = run_tool(
        "-m", "cfnseg", "eval", tmp_path / "runs/coco_json/best.safetensors", "--root", source
    )
    assert done.returncode == 0, done.stderr
    assert "names no split val: 20% of the images are val" in done.stderr


def test_every_split_is_that_of_the_converted_folder(tmp_path):
    names = ["a/x.jpg", "b/x.jpg", "b/x.png", "b/y.jpg", "c.jpg", "d.jpg"]
    source = coco(tmp_path / "in", names=names)
    convert_export("coco", source, tmp_path / "out", 0.34)
    convert_export("coco", source, tmp_path / "fifth")
    for split in ("train", "val", "train+val", "val+train"):
        data = cfnseg.open_dataset("coco_json", str(source), split)
        same = cfnseg.open_dataset("folder", str(tmp_path / "fifth"), split)
        assert data.names == same.names and data.labels == same.labels
        for index in range(len(data.names)):
            assert all(
                np.array_equal(a, b)
                for a, b in zip(read_sample(data, index), read_sample(same, index))
            )
    both = cfnseg.open_dataset("coco_json", str(source / "export.json"), "train+val")
    parts = hold_out(both, Data(name="coco_json", root=str(source), fold="0/3"))
    assert [len(part.names) for part in parts] == [4, 2]
    assert shared_files(parts[1], both) == 2 and shared_files(*parts) == 0
    before = fingerprint(parts[0])
    assert sources(parts[0], 0)[1] == source / "export.json"
    assert fingerprint(Subset(both, parts[0].indices)) == before


def test_what_is_wrong_is_one_line(tmp_path):
    source = coco(tmp_path / "in")

    def error(name="coco_json", root=source, split="train"):
        with pytest.raises(UserError) as caught:
            cfnseg.open_dataset(name, str(root), split)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "coco_json needs --data.root" in error(root="")
    assert "does not exist; give the export's" in error(root=tmp_path / "none")
    assert "split 'test' not found; the export has train (5 images), val (1 images)" in error(
        split="test"
    )
    assert "JSON" in error("labelme")
    content = json.loads((source / "export.json").read_text())
    content["images"][0]["height"] += 1
    (source / "export.json").write_text(json.dumps(content))
    data = cfnseg.open_dataset("coco_json", str(source), "train+val")
    with pytest.raises(UserError, match=r"clip0_0\.jpg is 80x64, its annotation 80x65"):
        read_sample(data, data.names.index("clip0_0"))
    done = run_tool(
        "-m", "cfnseg", "doctor", "shapes_cfn", "--data.name", "coco_json", "--data.root", source
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "its annotation 80x65" in done.stderr + done.stdout


def test_the_doctor_and_the_plan_read_it(tmp_path):
    source = coco(tmp_path / "in", 12)
    words = ("--data.name", "coco_json", "--data.root", source, "--runs", tmp_path)
    done = run_tool("-m", "cfnseg", "doctor", "shapes_cfn", *words)
    assert "wheel_rim" in done.stdout and "Traceback" not in done.stderr, done.stderr
