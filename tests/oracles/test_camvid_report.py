"""The report in docs/camvid_val against Cityscapes' evaluator, on the shipped weights' masks."""

import copy
import json

import numpy as np
import pytest
import torch

from cfnseg.data.dataset import open_dataset, read_sample
from cfnseg.data.formats.cityscapes import LABELS
from cfnseg.inference.predictor import Predictor
from cfnseg.metrics.confusion import confusion_matrix, counts_of, scores_of
from cfnseg.shipped import WEIGHTS
from tests.conftest import REPO

evaluator = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")


@pytest.mark.slow
def test_the_shipped_report_is_what_their_evaluator_counts(real_data, tmp_path):
    torch.set_num_threads(2)
    data, predictor = (
        open_dataset("camvid", str(real_data / "camvid"), "val"),
        Predictor(next(iter(WEIGHTS)), "cpu"),
    )
    files, matrix = [], 0
    for index, name in enumerate(data.names):
        image, truth = read_sample(data, index)
        prediction = predictor(image).mask
        matrix = matrix + confusion_matrix(truth, prediction, len(data.labels))
        files.append(
            (str(tmp_path / f"{name}_prediction.png"), str(tmp_path / f"{name}_truth.png"))
        )
        for path, mask in zip(
            files[-1], (prediction, truth)
        ):  # CamVid's eleven classes under the ids of Cityscapes' first eleven
            LABELS.write(path, mask)
    args = copy.copy(evaluator.args)
    args.evalInstLevelScore, args.JSONOutput, args.quiet = False, False, True
    theirs = evaluator.evaluateImgLists(*map(list, zip(*files)), args)
    iou = np.array(
        [theirs["classScores"][label.name] for label in LABELS.labels[: len(data.labels)]]
    )
    np.testing.assert_allclose(scores_of(counts_of(matrix)).iou, iou, rtol=0, atol=1e-9)
    report = json.loads((REPO / "docs" / "camvid_val" / "report.json").read_text())
    # other processors and thread counts round a few pixels differently
    np.testing.assert_allclose([row["iou"] for row in report["classes"]], iou, rtol=0, atol=2e-3)
    assert report["miou"] == pytest.approx(iou.mean(), abs=3e-4)
