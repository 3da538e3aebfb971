"""The Cityscapes owners' evaluator against our score of the same files."""

import copy

import numpy as np
import pytest

from cfnseg.data.dataset import FileDataset
from cfnseg.data.formats.cityscapes import LABELS
from cfnseg.evaluation.mask_files import evaluate_masks
from cfnseg.metrics import confusion
from tests.oracles.class_maps import ADVERSARIAL, Split

evaluator = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")


def drawn(seed: int, images: int) -> Split:
    """All 19 classes but two, ignored pixels, and predicted pixels without a class."""
    rng = np.random.default_rng(seed)
    truths = [rng.integers(0, 17, (20, 30), dtype=np.uint8) for _ in range(images)]
    predictions = [
        np.where(rng.random(t.shape) < 0.6, t, rng.integers(0, 18, t.shape)).astype(np.uint8)
        for t in truths
    ]
    for truth, prediction in zip(truths, predictions):
        truth[:3], prediction[1:5] = 255, 255
    return 19, truths, predictions


def check(split: Split, folder) -> None:
    files = {
        kind: [folder / f"{i}_{kind}.png" for i in range(len(split[1]))]
        for kind in ("truth", "prediction")
    }
    for kind, masks in zip(files, split[1:]):
        for path, mask in zip(files[kind], masks):
            LABELS.write(path, mask)
    args = copy.copy(evaluator.args)  # a global that it fills
    args.evalInstLevelScore, args.JSONOutput, args.quiet = False, False, True
    theirs = evaluator.evaluateImgLists(
        [str(p) for p in files["prediction"]], [str(p) for p in files["truth"]], args
    )
    ours = evaluate_masks(
        FileDataset([(p, p) for p in files["truth"]], LABELS), files["prediction"], workers=0
    )
    ids = [label.id for label in LABELS.labels]
    assert np.array_equal(ours.confusion, np.array(theirs["confMatrix"])[np.ix_(ids, ids)])
    iou = np.array([theirs["classScores"][label.name] for label in LABELS.labels])
    np.testing.assert_allclose(ours.scores.iou, iou, rtol=0, atol=1e-9)
    assert ours.scores.miou == pytest.approx(theirs["averageScoreClasses"], abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("seed", range(4))
def test_random_files(tmp_path, seed):
    check(drawn(seed, 1 + seed), tmp_path)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_files(tmp_path, name):
    check(ADVERSARIAL[name], tmp_path)


def test_it_catches_an_absent_class_that_counts_as_one(tmp_path, monkeypatch):
    rule = confusion.iou_of
    monkeypatch.setattr(confusion, "iou_of", lambda counts: np.nan_to_num(rule(counts), nan=1))
    with pytest.raises(AssertionError):
        check(drawn(0, 1), tmp_path)
