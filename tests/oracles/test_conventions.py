"""The mIoU of other libraries, against the installed ones."""

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from torchmetrics.functional.classification import multiclass_jaccard_index
from torchmetrics.segmentation import MeanIoU

from cfnseg.data.labels import IGNORE
from cfnseg.metrics.conventions import conventions
from tests.oracles.class_maps import ADVERSARIAL, Split, counts_of_images, splits


def by_library(split: Split) -> dict[str, float]:
    return {row.library: row.miou for row in conventions(counts_of_images(split))}


def check(split: Split) -> None:
    classes, truths, predictions = split
    if classes < 2:  # SMP counts by torch.histc, which is wrong for a range without width
        return
    ours = by_library(split)
    stats = [
        smp.metrics.get_stats(
            torch.from_numpy(p[None]).long(),
            torch.from_numpy(t[None]).long(),
            "multiclass",
            IGNORE,
            num_classes=classes,
        )
        for t, p in zip(truths, predictions)
    ]
    stats = [torch.cat(part) for part in zip(*stats)]
    for reduction in ("macro", "micro", "micro-imagewise", "macro-imagewise"):
        theirs = float(smp.metrics.iou_score(*stats, reduction=reduction))
        assert ours[f"SMP iou_score {reduction}"] == pytest.approx(theirs, abs=1e-6, nan_ok=True), (
            reduction
        )
    metric = MeanIoU(classes)
    for truth, prediction in zip(truths, predictions):
        # it has no ignored id: ignored pixels get no class in truth and prediction
        hot = [
            torch.from_numpy(
                (mask[None, None] == np.arange(classes)[:, None, None]) & (truth != IGNORE)
            ).int()
            for mask in (prediction, truth)
        ]
        metric.update(*hot)
    assert ours["torchmetrics segmentation.MeanIoU"] == pytest.approx(
        float(metric.compute()), abs=1e-6, nan_ok=True
    )
    truth, prediction = (
        torch.from_numpy(np.concatenate([m.ravel() for m in masks])).long()
        for masks in (truths, predictions)
    )
    jaccard = float(
        multiclass_jaccard_index(prediction, truth, classes, average="macro", ignore_index=IGNORE)
    )
    same = ours["mmsegmentation IoUMetric, torchmetrics JaccardIndex, Cityscapes scripts"]
    assert same == pytest.approx(jaccard, abs=1e-6, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(splits())
def test_random_splits(split):
    check(split)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_splits(name):
    check(ADVERSARIAL[name])


def test_rules_that_are_not_installed_by_hand():
    # class 0: 8 of 8 pixels found, 4 too many; class 1: 0 of 4 found
    # class 2: nowhere; class 3: 4 predicted, none there
    split = (
        4,
        [np.zeros((2, 4), np.uint8), np.ones((1, 4), np.uint8), np.full((1, 4), 0, np.uint8)],
        [np.zeros((2, 4), np.uint8), np.zeros((1, 4), np.uint8), np.full((1, 4), 3, np.uint8)],
    )
    rows = {row.library: row for row in conventions(counts_of_images(split))}
    iou = 8 / 16
    assert rows["cfnseg"].miou == pytest.approx(iou / 3)
    assert rows["detectron2 SemSegEvaluator"].miou == pytest.approx(iou / 2)
    assert "1 class is predicted but not in the truth" in rows["detectron2 SemSegEvaluator"].why
    assert rows["PaddleSeg mean_iou"].miou == pytest.approx(iou / 4)
    assert (
        np.isnan(rows["torchvision references"].miou)
        and "1 class is absent" in rows["torchvision references"].why
    )


def test_without_absent_classes_the_rules_over_the_split_are_one():
    rng = np.random.default_rng(0)
    truths = [rng.integers(0, 3, (9, 9), dtype=np.uint8) for _ in range(3)]
    rows = conventions(counts_of_images((3, truths, [np.roll(t, 1) for t in truths])))
    assert len({row.miou for row in rows[:5]} | {rows[-1].miou}) == 1
    assert [row.why for row in rows[:5]] == ["-"] * 5
