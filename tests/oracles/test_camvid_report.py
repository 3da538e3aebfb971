"""The shipped weights' masks of CamVid, counted by Cityscapes' evaluator and by ours."""

import copy

import numpy as np
import pytest
import torch

from cfnseg.data.dataset import open_dataset, read_sample
from cfnseg.data.formats.cityscapes import LABELS
from cfnseg.inference.predictor import Predictor
from cfnseg.metrics.confusion import confusion_matrix, counts_of, scores_of
from cfnseg.shipped import WEIGHTS

evaluator = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")


@pytest.mark.slow
def test_their_evaluator_counts_the_same(real_data, tmp_path):
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
