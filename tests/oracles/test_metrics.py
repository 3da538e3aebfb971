"""Our scores against other people's, to 1e-9, on random and adversarial class maps."""

import numpy as np
import pycocotools.mask
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_jaccard_index, multiclass_stat_scores

from cfnseg.metrics import confusion
from cfnseg.metrics.ranking import average_precision, mean_average_precision
from tests.oracles.class_maps import ADVERSARIAL, Split, counts_of_images, flat, splits


def check(split: Split) -> None:
    """Every oracle that accepts the split agrees on the matrix, each class's IoU and their mean."""
    classes, *_ = split
    counts = counts_of_images(split)
    scores = confusion.scores_of(counts.sum(0))
    truth, prediction = flat(split)
    matrix = confusion.confusion_matrix(
        truth.astype(np.uint8), prediction.astype(np.uint8), classes
    )
    assert np.array_equal(confusion.counts_of(matrix), counts.sum(0))
    if not len(truth):
        assert (
            scores.divisor == 0
            and np.isnan(scores.miou)
            and np.isnan(scores.iou).all()
            and not matrix.any()
        )
        return
    assert np.array_equal(
        matrix, sklearn.metrics.confusion_matrix(truth, prediction, labels=range(classes))
    )
    seen = sorted({*truth, *prediction})
    agree(
        scores,
        classes,
        dict(
            zip(seen, sklearn.metrics.jaccard_score(truth, prediction, labels=seen, average=None))
        ),
    )
    coco = {c: coco_iou(truth == c, prediction == c) for c in range(classes)}
    agree(
        scores,
        classes,
        {c: iou for c, iou in coco.items() if (truth == c).any() or (prediction == c).any()},
    )
    if classes > 1:  # torchmetrics has no multiclass task of one
        pair = (
            torch.from_numpy(np.concatenate([p.ravel() for p in split[2]])).long(),
            torch.from_numpy(np.concatenate([t.ravel() for t in split[1]])).long(),
        )
        hit, false, _, missed, _ = (
            multiclass_stat_scores(*pair, classes, average="none", ignore_index=255).numpy().T
        )
        agree(
            scores,
            classes,
            {
                c: hit[c] / (hit + false + missed)[c]
                for c in range(classes)
                if (hit + false + missed)[c]
            },
        )
        theirs = multiclass_jaccard_index(*pair, classes, average="macro", ignore_index=255)
        assert scores.miou == pytest.approx(float(theirs), abs=1e-6)  # it divides in float32


def agree(scores: confusion.Scores, classes: int, theirs: dict[int, float]) -> None:
    expected = np.array([theirs.get(c, np.nan) for c in range(classes)])
    np.testing.assert_allclose(scores.iou, expected, rtol=0, atol=1e-9)
    assert scores.miou == pytest.approx(
        np.mean(list(theirs.values())), abs=1e-9
    ) and scores.divisor == len(theirs)


def coco_iou(truth: np.ndarray, prediction: np.ndarray) -> float:
    masks = [
        pycocotools.mask.encode(np.asfortranarray(mask[None].astype(np.uint8)))
        for mask in (prediction, truth)
    ]
    return float(pycocotools.mask.iou(masks[:1], masks[1:], [False])[0, 0])


@pytest.mark.filterwarnings("ignore:A single label")
@settings(max_examples=120, deadline=None)
@given(splits())
def test_scores_of_random_splits(split):
    check(split)


@pytest.mark.filterwarnings("ignore:A single label")
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_scores_of_adversarial_splits(name):
    check(ADVERSARIAL[name])


@pytest.mark.filterwarnings("ignore:A single label")
def test_the_oracles_catch_an_absent_class_that_counts_as_one(monkeypatch):
    rule = confusion.iou_of
    monkeypatch.setattr(confusion, "iou_of", lambda counts: np.nan_to_num(rule(counts), nan=1))
    with pytest.raises(AssertionError):
        check(ADVERSARIAL["absent classes"])


@settings(max_examples=60, deadline=None)
@given(splits())
def test_matrix_of_a_device_is_that_of_numpy(split):
    classes, truths, predictions = split
    for truth, prediction in zip(truths, predictions):
        ours = confusion.device_confusion_matrix(
            torch.from_numpy(truth), torch.from_numpy(prediction), classes
        )
        assert (
            np.array_equal(ours, confusion.confusion_matrix(truth, prediction, classes))
            and ours.dtype == np.int64
        )


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_average_precision_is_scikit_learns_curve_under_vocs_envelope(images, seed):
    rng = np.random.default_rng(seed)
    scores, present = (
        rng.integers(0, 8, (images, 3)) / 8,
        rng.random((images, 3)) < 0.4,
    )  # ties are common
    expected = []
    for c in np.flatnonzero(present.any(0)):
        precision, recall, _ = sklearn.metrics.precision_recall_curve(
            present[:, c], scores[:, c]
        )  # recall falls
        # scikit-learn's own area has the same steps of recall without the envelope
        plain = sklearn.metrics.average_precision_score(present[:, c], scores[:, c])
        assert -np.diff(recall) @ precision[:-1] == pytest.approx(plain, abs=1e-9)
        expected.append(-np.diff(recall) @ np.maximum.accumulate(precision)[:-1])
        ours = average_precision(scores[:, c], present[:, c])
        assert ours == pytest.approx(expected[-1], abs=1e-9) and ours >= plain - 1e-9
    mean, each = mean_average_precision(scores, present)
    assert np.array_equal(np.isnan(each), ~present.any(0))
    assert mean == pytest.approx(np.mean(expected), abs=1e-9) if expected else np.isnan(mean)
