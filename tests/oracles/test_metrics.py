"""Our counting against other people's, on random and adversarial label maps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnseg.metrics.classification import average_precision
from cfnseg.metrics.confusion import confusion_matrix, counts_of, scores_of


@st.composite
def maps(draw):
    classes = draw(st.integers(1, 6))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    present = rng.integers(0, classes, rng.integers(1, classes + 1))  # some classes absent
    truth, prediction = (rng.choice(present, shape).astype(np.uint8) for _ in range(2))
    truth[rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = 255
    return classes, truth, prediction


@settings(max_examples=150, deadline=None)
@given(maps())
def test_confusion_equals_scikit_learn(case):
    sklearn = pytest.importorskip("sklearn.metrics")
    classes, truth, prediction = case
    kept = truth != 255
    if not kept.any():
        assert not confusion_matrix(truth, prediction, classes).any()
        return
    theirs = sklearn.confusion_matrix(truth[kept], prediction[kept], labels=range(classes))
    assert np.array_equal(confusion_matrix(truth, prediction, classes), theirs)


@settings(max_examples=100, deadline=None)
@given(maps())
def test_miou_equals_torchmetrics_jaccard(case):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    classes, truth, prediction = case
    scores = scores_of(counts_of(confusion_matrix(truth, prediction, classes)))
    if classes < 2 or not scores.divisor:
        return
    each = functional.multiclass_jaccard_index(torch.from_numpy(prediction).long(), torch.from_numpy(truth).long(), classes,
                                               average="none", ignore_index=255).double().numpy()
    known = ~np.isnan(scores.iou)
    assert scores.iou[known] == pytest.approx(each[known], abs=1e-6)  # theirs is float32
    mean = functional.multiclass_jaccard_index(torch.from_numpy(prediction).long(), torch.from_numpy(truth).long(), classes,
                                               average="macro", ignore_index=255)
    assert scores.miou == pytest.approx(float(mean), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_average_precision_against_a_plain_count(images, seed):
    rng = np.random.default_rng(seed)
    scores, present = rng.integers(0, 8, images) / 8, rng.random(images) < 0.4  # ties are common
    if not present.any():
        return
    # VOC 2010's rule, written out: at every recall reached, the best precision at that recall or a larger one
    thresholds = np.unique(scores)[::-1]
    points = [((scores >= t) & present).sum() / np.array([present.sum(), (scores >= t).sum()]) for t in thresholds]
    area, before = 0.0, 0.0
    for i, (recall, _) in enumerate(points):
        area += (recall - before) * max(p for _, p in points[i:])
        before = recall
    assert average_precision(scores, present) == pytest.approx(area)
