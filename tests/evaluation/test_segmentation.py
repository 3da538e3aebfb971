"""What evaluation counts of a model, against the masks that the model gives."""

import numpy as np
import pytest
import torch

from cfnseg.config import Model
from cfnseg.data.dataset import open_dataset, read_sample
from cfnseg.evaluation.segmentation import evaluate
from cfnseg.inference.predictor import Predictor
from cfnseg.inference.settings import Inference
from cfnseg.metrics.calibration import expected_calibration_error
from cfnseg.metrics.confusion import confusion_matrix
from cfnseg.metrics.segments import Details, count_details
from cfnseg.models.build import build_model
from cfnseg.models.weights import Weights
from tests.conftest import ENCODER


@pytest.fixture(scope="module")
def split(folder_data):
    return open_dataset("folder", str(folder_data), "val")


@pytest.fixture(scope="module")
def model(split):
    torch.manual_seed(0)
    return build_model(Model(encoder=ENCODER, encoder_weights=None, width=8), len(split.labels))


@pytest.mark.parametrize(
    "inference", [Inference(), Inference(window=(32, 32), scales=(1.0, 1.5), flip=True)]
)
def test_counts_are_those_of_the_predictors_masks(split, model, inference):
    result = evaluate(model.train(), split, workers=0, details=True, inference=inference)
    assert model.training
    settings = Model(encoder=ENCODER, encoder_weights=None, width=8)
    predictor = Predictor(Weights(model, settings, split.labels, {}), "cpu", inference)
    expected, matrix, right, sure = Details.zeros(5, len(split.labels)), 0, 0, 0.0
    for i in range(5):
        image, truth = read_sample(split, i)
        prediction = predictor(image)
        matrix = matrix + confusion_matrix(truth, prediction.mask, len(split.labels))
        expected.add(i, count_details(truth, prediction.mask, len(split.labels)))
        right += (truth == prediction.mask)[truth != 255].sum()
        sure += prediction.confidence[truth != 255].sum(dtype=np.float64)
    assert np.array_equal(result.confusion, matrix)
    for ours, theirs in zip(result.details.parts, expected.parts):
        assert np.array_equal(ours, theirs)
    assert result.calibration.sum(0) == pytest.approx([matrix.sum(), sure, right], rel=1e-6)
    assert 0 <= expected_calibration_error(result.calibration) <= 1


def test_lean_by_default(split, model):
    lean, full = evaluate(model, split, workers=0), evaluate(model, split, workers=0, details=True)
    assert lean.details is lean.calibration is None
    assert np.array_equal(lean.counts, full.counts) and lean.loss == full.loss
