"""Two scored runs against each other: the numbers, what is refused, and the page."""

import json
import math
import re
import shutil

import cv2
import numpy as np
import pytest
import torch

from cfnseg.config import Config, Data, Model, Optim
from cfnseg.config_values import to_dict
from cfnseg.data.dataset import open_dataset, read_sample
from cfnseg.data.labels import ClassNames
from cfnseg.errors import UserError
from cfnseg.evaluation.classification import ImageEvaluation
from cfnseg.inference.settings import Inference
from cfnseg.models.build import build_model
from cfnseg.models.weights import save_weights
from cfnseg.report.classification_report import write_classification_report
from cfnseg.report.comparison import compare
from cfnseg.workflows import score_predictions, score_weights
from tests.conftest import ENCODER, run_tool
from tests.report.test_segmentation_report import Loads

NAMES = ClassNames(["cat", "dog", "frog"])


def masks_of(root, folder, wrong: float, seed: int = 0) -> None:
    """Predictions: the truth, but another class in a share ``wrong`` of the 8 x 10 blocks."""
    data, rng = open_dataset("folder", str(root), "val"), np.random.default_rng(seed)
    folder.mkdir()
    for index, name in enumerate(data.names):
        _, truth = read_sample(data, index)
        blocks = cv2.resize(rng.random((8, 10)), truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
        raw = data.labels.decode(
            np.where(blocks < wrong, (truth + 1) % len(data.labels), truth).astype(np.uint8)
        )
        cv2.imwrite(str(folder / f"{name}.png"), raw)


@pytest.fixture(scope="module")
def pair(folder_data, tmp_path_factory):
    """Reports on the same images with 30 % (A) and 10 % (B) of the blocks wrong."""
    home = tmp_path_factory.mktemp("pair")
    for name, wrong in (("bad", 0.3), ("good", 0.1)):
        masks_of(folder_data, home / f"{name}_masks", wrong)
        score_predictions(
            home / f"{name}_masks", "folder", str(folder_data), "val", home / name, workers=0
        )
    return home / "bad", home / "good"


def edited(report, folder, change):
    """The report with its content changed, in a folder of its own."""
    content = json.loads((report / "report.json").read_text())
    change(content)
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(content))
    return folder


def test_the_better_one_is_found(pair, tmp_path, capsys):
    found = compare(*pair, tmp_path)
    printed = capsys.readouterr().out
    one, two = (json.loads((side / "report.json").read_text()) for side in pair)
    assert found["a"]["score"] == pytest.approx(one["miou"], abs=1e-12) and found["b"][
        "score"
    ] == pytest.approx(two["miou"], abs=1e-12)
    assert found["a"]["ci95"] == one["miou_ci95"] and found["b"]["ci95"] == two["miou_ci95"]
    assert found["difference"] == pytest.approx(two["miou"] - one["miou"], abs=1e-12)
    low, high = found["ci95"]
    assert 0 < low < found["difference"] < high and found["p_value"] < 0.001
    for row in found["classes"]:
        old, new = (
            next(c["iou"] for c in report["classes"] if c["name"] == row["name"])
            for report in (one, two)
        )
        assert (row["a"], row["b"]) == (old, new)
    excluded = [
        row["ci95"][0] is not None and (row["ci95"][0] > 0 or row["ci95"][1] < 0)
        for row in found["classes"]
    ]
    assert excluded == sorted(excluded, reverse=True) and any(excluded)
    assert [abs(row["difference"]) for row in found["images"]] == sorted(
        (abs(r["difference"]) for r in found["images"]), reverse=True
    )
    for text in (
        f"mIoU {100 * one['miou']:.1f} (95 % interval",
        f"mIoU {100 * two['miou']:.1f} (95 % interval",
        "p < 0.001",
        "B is better",
        "excludes 0",
        f"| {found['images'][0]['name']} |",
        "predictions: `",
    ):
        assert text in printed
    assert (
        json.loads((tmp_path / "compare.json").read_text()) == found
        and (tmp_path / "compare.md").read_text() in printed
    )


def test_the_other_way_about_only_the_signs_change(pair, tmp_path):
    there, back = compare(*pair, tmp_path / "1"), compare(*pair[::-1], tmp_path / "2")
    assert back["difference"] == -there["difference"] and back["ci95"] == pytest.approx(
        [-x for x in there["ci95"][::-1]]
    )
    assert back["p_value"] == there["p_value"] and [r["name"] for r in back["classes"]] == [
        r["name"] for r in there["classes"]
    ]
    assert "A is better" in (tmp_path / "2" / "compare.md").read_text()


def test_the_order_of_the_images_changes_nothing(pair, tmp_path):
    turned = edited(pair[1], tmp_path / "good", lambda content: content["images"].reverse())
    found, other = compare(*pair, tmp_path / "1"), compare(pair[0], turned, tmp_path / "2")
    assert (
        found["difference"] == other["difference"]
        and found["ci95"] == other["ci95"]
        and found["images"] == other["images"]
    )


def test_identical_runs_do_not_differ(pair, tmp_path):
    found = compare(pair[0], pair[0], tmp_path)
    assert found["difference"] == 0 and found["ci95"] == [0, 0] and found["p_value"] == 1
    assert all(row["difference"] in (0, None) for row in found["classes"]) and found["facts"] == []
    text = (tmp_path / "compare.md").read_text()
    assert (
        "the same mIoU, whichever images" in text
        and "No image has another mIoU" in text
        and "excludes 0" not in text
    )
    assert "No image has another mIoU" in (tmp_path / "compare.html").read_text()


def test_images_that_one_side_lacks_are_left_out(pair, tmp_path):
    fewer = edited(pair[1], tmp_path / "fewer", lambda content: content["images"].pop(0))
    found = compare(pair[0], fewer, tmp_path / "out")
    assert (
        found["num_images"] == 4 and found["left_out"] == {"a": 1, "b": 0} and found["others"] == []
    )
    assert "1 that only A has" in (tmp_path / "out" / "compare.md").read_text()


def test_settings_that_differ(tmp_path, pair):
    runs = []
    for name, rate, side in (("slow", 0.01, pair[0]), ("fast", 0.1, pair[1])):
        run = tmp_path / name
        edited(side, run / "report", lambda content: None)
        config = Config(
            model=Model(encoder="x"), data=Data(name="folder"), optim=Optim(lr=rate), name=name
        )
        (run / "config.json").write_text(
            json.dumps(to_dict(config) | {"environment": {"commit": name, "torch": "9"}})
        )
        runs.append(run)
    found = compare(*runs)
    assert found["settings"] == [
        {"key": "optim.lr", "a": "0.01", "b": "0.1"},
        {"key": "name", "a": "slow", "b": "fast"},
    ]
    assert (
        found["environment"] == [{"key": "commit", "a": "slow", "b": "fast"}]
        and found["without_settings"] == []
    )
    assert (
        found["a"]["name"] == "slow"
        and (tmp_path / "fast" / "compare_with_slow" / "compare.html").exists()
    )
    found = compare(runs[0], pair[1], tmp_path / "out")
    assert found["settings"] == [] and found["without_settings"] == ["b"]
    assert (
        "No run folder with a config.json was found for B"
        in (tmp_path / "out" / "compare.md").read_text()
    )


class TestRefusals:
    """What cannot be compared is named, with the reason."""

    def refused(self, a, b, message):
        with pytest.raises(UserError, match=message):
            compare(a, b)

    def test_other_classes(self, pair, tmp_path):
        renamed = edited(
            pair[1], tmp_path / "1", lambda content: content["classes"][2].update(name="zebra")
        )
        self.refused(
            pair[0], renamed, r"the classes differ: '.*' only in .*bad.* and 'zebra' only in"
        )
        swapped = edited(pair[1], tmp_path / "2", lambda content: content["classes"].reverse())
        self.refused(pair[0], swapped, "class 0 is '.*' in .* and '.*' in")

    def test_other_truth(self, pair, tmp_path):
        def shift(content):
            content["images"][3]["counts"][1][0] += 1

        self.refused(
            pair[0],
            edited(pair[1], tmp_path / "other", shift),
            "the truth of 1 of 5 images differs between .*, first s03",
        )

    def test_other_images(self, pair, tmp_path):
        def rename(content):
            for row in content["images"]:
                row["name"] += "x"

        other = edited(pair[1], tmp_path / "other", rename)
        self.refused(
            pair[0], other, r"\(5 images, first s00\) and .* first s00x\) have no image in common"
        )

    def test_segmentation_against_classification(self, pair, classified):
        self.refused(
            pair[0],
            classified[0],
            "is of a segmentation .* of a classification .*; compare two of one kind",
        )

    def test_what_is_no_report(self, pair, tmp_path):
        self.refused(pair[0], tmp_path / "nowhere", "the run not found at .*nowhere")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "log.jsonl").write_text("")
        self.refused(
            tmp_path / "run",
            pair[0],
            r"neither report/report.json nor report.json; it has log.jsonl",
        )
        for text, message in (
            ('{"miou": ', "not readable as JSON"),
            ("[1]", "is no report of cfnseg"),
            (
                '{"classes": [], "images": [{"name": "a", "miou": 1}]}',
                "a has no counts.*older cfnseg",
            ),
        ):
            (tmp_path / "report.json").write_text(text)
            self.refused(tmp_path / "report.json", pair[0], message)

    def test_folder_that_cannot_be_made(self, pair, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="file"):
            compare(*pair, tmp_path / "file" / "out")

    def test_by_the_tool(self, pair, tmp_path):
        done = run_tool("tools/compare.py", pair[0], tmp_path / "nowhere")
        assert (
            done.returncode == 1
            and done.stderr.startswith("error: the run not found at")
            and "Traceback" not in done.stderr
        )


def page_of(folder) -> str:
    """The page, which fetches nothing."""
    page = (folder / "compare.html").read_text()
    loads = Loads(page)
    assert all(value.startswith("data:image/") for value in loads.fetched)
    assert (
        loads.tags.count("script") == 1
        and "link" not in loads.tags
        and "default-src 'none'" in page
        and len(page) < 5e6
    )
    return page


def test_pictures_of_masks(pair, tmp_path):
    found = compare(*pair, tmp_path)
    page = page_of(tmp_path)
    assert (
        page.count("<img") == 5 * sum(row["difference"] > 0 for row in found["images"][:4])
        and "not available" not in page
    )
    share = re.search(
        r"B fixes ([0-9.]+) % of the pixels and breaks 0.0 %", page
    )  # the same blocks, and fewer of them
    assert share and 10 < float(share[1]) < 40


def test_pictures_of_weights(pair, folder_data, tmp_path):
    labels = open_dataset("folder", str(folder_data), "val").labels
    settings = Model(encoder=ENCODER, encoder_weights=None, width=8)
    save_weights(
        tmp_path / "w.safetensors",
        build_model(settings, len(labels)),
        settings,
        labels,
        {"data": "folder"},
    )
    score_weights(
        tmp_path / "w.safetensors", "", str(folder_data), "val", tmp_path / "net", 0, "cpu"
    )
    compare(pair[0], tmp_path / "net", tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert page.count("<img") == 20 and "B lost most" in page and "not available" not in page
    (tmp_path / "w.safetensors").unlink()
    compare(pair[0], tmp_path / "net", tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert (
        "No prediction of B: its weights are no longer at" in page
        and page.count("<img") == 12
        and page.count("not available") == 8
    )


def test_pictures_through_other_windows_and_views(folder_data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "cfnseg.report.comparison.changed_images.CLOSE", 0
    )  # not one pixel may be another than the one that was counted
    labels = open_dataset("folder", str(folder_data), "val").labels
    settings = Model(encoder=ENCODER, encoder_weights=None, width=8)
    torch.manual_seed(0)
    save_weights(
        tmp_path / "w.safetensors",
        build_model(settings, len(labels)),
        settings,
        labels,
        {"data": "folder"},
    )
    for name, inference in (
        ("plain", Inference()),
        ("views", Inference(window=(32, 64), scales=(1.0, 1.5), flip=True)),
    ):
        score_weights(
            tmp_path / "w.safetensors",
            "",
            str(folder_data),
            "val",
            tmp_path / name,
            0,
            "cpu",
            inference,
        )
    found = compare(tmp_path / "plain", tmp_path / "views", tmp_path / "out")
    assert {"flip", "scales", "window"} == {row["key"] for row in found["facts"]} and found[
        "difference"
    ] != 0
    page = page_of(tmp_path / "out")
    assert (
        page.count("<img") >= 20
        and "not available" not in page
        and "have changed since" not in page
    )


def test_pictures_that_are_not_those_that_were_scored(folder_data, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(folder_data, root)
    for name, wrong in (("a", 0.4), ("b", 0.1)):
        masks_of(root, tmp_path / f"{name}_masks", wrong)
        score_predictions(
            tmp_path / f"{name}_masks", "folder", str(root), "val", tmp_path / name, workers=0
        )
    first = compare(tmp_path / "a", tmp_path / "b", tmp_path / "out")["images"][0]["name"]
    shutil.copy(root / "labels" / "val" / f"{first}.png", tmp_path / "a_masks")
    compare(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert f"No prediction of A for {first}: its weights or masks have changed since" in page_of(
        tmp_path / "out"
    )
    (root / "labels" / "val" / f"{first}.png").write_bytes(
        (root / "labels" / "train" / "s00.png").read_bytes()
    )
    compare(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert f"No picture of {first}: its truth is not the one that was scored" in page_of(
        tmp_path / "out"
    )
    shutil.rmtree(root)
    compare(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert "No picture: " in page and "<img" not in page and f"<p>{first}: mIoU" in page


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """Reports of two classifications of 60 images: A has 20 wrong, B has 6 of A's and 2 others."""
    home = tmp_path_factory.mktemp("classified")
    targets = np.arange(60) % 3
    names = [f"{NAMES.names[t]}/{i}.png" for i, t in enumerate(targets)]
    for t, name in zip(targets, names):
        path = home / "data" / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((40, 40, 3), 40 * t, np.uint8))
    for side, wrong in (("a", range(20)), ("b", (*range(6), 58, 59))):
        taken = targets.copy()
        taken[list(wrong)] = (targets[list(wrong)] + 1) % 3
        result = ImageEvaluation(
            names,
            targets,
            np.where(np.arange(3) == taken[:, None], 0.8, 0.1).astype(np.float32),
            0.5,
        )
        facts = {
            "data": "image_folder",
            "root": str(home / "data"),
            "split": "val",
            "weights": f"{side}.safetensors",
        }
        write_classification_report(
            home / side, result, NAMES, lambda i: np.zeros((40, 40, 3), np.uint8), facts=facts
        )
    return home / "a", home / "b"


def test_classifications(classified, tmp_path):
    found = compare(*classified, tmp_path)
    assert found["metric"] == "top1_error"
    assert found["a"]["score"] == pytest.approx(20 / 60) and found["b"]["score"] == pytest.approx(
        8 / 60
    )
    assert found["difference"] == pytest.approx(-12 / 60) and found["ci95"][1] < 0
    assert found["p_value"] == pytest.approx(
        sum(math.comb(16, k) for k in (0, 1, 2)) * 2 / 2**16
    )  # McNemar, exact: 2 of 16
    assert [row["b_right"] for row in found["images"]].count(True) == 14 and len(
        found["images"]
    ) == 16
    text = (tmp_path / "compare.md").read_text()
    assert (
        "B is better" in text
        and "B has 14 images right that A has wrong, and 2 wrong that A has right" in text
        and "McNemar" in text
    )
    page = page_of(tmp_path)
    assert "Only B is right" in page and "Only A is right" in page and page.count("<img") == 12 + 2
    same = compare(classified[0], classified[0], tmp_path / "same")
    assert same["difference"] == 0 and same["p_value"] == 1 and same["images"] == []
    page_of(tmp_path / "same")
