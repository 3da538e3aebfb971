"""mIoU as other libraries define it, from the same counts.

Their rules differ in absent classes and in what they average. Sources, each with its defaults:
mmsegmentation `IoUMetric` (mmseg/evaluation/metrics/iou_metric.py), cityscapesScripts
`evalPixelLevelSemanticLabeling`, torchmetrics 1.9 `JaccardIndex` and `segmentation.MeanIoU`,
detectron2 `SemSegEvaluator` (detectron2/evaluation/sem_seg_evaluation.py), PaddleSeg `mean_iou`
(paddleseg/utils/metrics.py), segmentation-models-pytorch 0.6 `iou_score`
(segmentation_models_pytorch/metrics/functional.py) and torchvision's
references/segmentation/utils.py. They compute in float32, cfnseg in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cfnseg.metrics.confusion import iou_of, known_mean, scores_of


@dataclass(frozen=True)
class Convention:
    """The mIoU that a library would report.

    Attributes:
        library: its name, and the metric's.
        miou: 0..1, or nan.
        rule: its definition, in a line.
        why: why it differs from ours on these counts; "-" if it does not.
    """

    library: str
    miou: float
    rule: str
    why: str


def conventions(counts: np.ndarray) -> list[Convention]:
    """Every library's mIoU.

    Args:
        counts: (images, 3, C) int64 true positives, truth and predicted pixels
            (`cfnseg.metrics.confusion.counts_of`).

    Returns:
        Ours first.
    """
    total = counts.sum(0)
    images, _, classes = counts.shape
    iou, each = iou_of(total), iou_of(counts)
    absent, empty = int(np.isnan(iou).sum()), int(np.isnan(each).sum())
    only_predicted = int(((total[1] == 0) & (total[2] > 0)).sum())
    ours = scores_of(total).miou
    dropped = f"{_classes(absent)} absent from truth and prediction: no term of our mean"
    of_pairs = (
        "every image counts alike, however many pixels of a class it has; "
        f"of {images} x {classes} pairs {empty} are absent"
    )
    rows = [
        (
            "cfnseg",
            ours,
            "one matrix over the split; mean over the classes in truth or prediction",
            "-",
        ),
        (
            "mmsegmentation IoUMetric, torchmetrics JaccardIndex, Cityscapes scripts",
            ours,
            "as ours",
            "-",
        ),
        (
            "detectron2 SemSegEvaluator",
            known_mean(iou[total[1] > 0]),
            "mean over the classes in the truth",
            f"{_classes(only_predicted)} predicted but not in the truth: "
            "0 in our mean, no term of this one",
        ),
        (
            "PaddleSeg mean_iou",
            known_mean(np.nan_to_num(iou, nan=0)),
            "mean over all classes, an absent one counts as 0",
            dropped,
        ),
        (
            "SMP iou_score macro",
            known_mean(np.nan_to_num(iou, nan=1)),
            "mean over all classes, an absent one counts as 1",
            dropped,
        ),
        (
            "SMP iou_score micro",
            known_mean(_micro(total[None])),
            "one IoU of all pixels, whatever their class",
            "classes weigh by their pixels, so rare ones hardly count",
        ),
        (
            "SMP iou_score micro-imagewise",
            known_mean(np.nan_to_num(_micro(counts), nan=1)),
            "the same of each image, then the mean",
            "classes weigh by their pixels, and every image counts alike",
        ),
        (
            "SMP iou_score macro-imagewise",
            known_mean(np.nan_to_num(each, nan=1)),
            "mean over classes and images, one that is absent from an image counts as 1",
            of_pairs,
        ),
        (
            "torchmetrics segmentation.MeanIoU",
            known_mean(each),
            "mean over the pairs of image and class that occur",
            of_pairs,
        ),
        (
            "torchvision references",
            float(np.mean(iou)),
            "mean over all classes, nan if one is absent",
            dropped,
        ),
    ]
    return [
        Convention(name, value, rule, "-" if value == ours else why)
        for name, value, rule, why in rows
    ]


def _micro(counts: np.ndarray) -> np.ndarray:
    """(...,) IoU of all classes together, from (..., 3, C) counts; nan without pixels."""
    return iou_of(counts.sum(-1, keepdims=True))[..., 0]


def _classes(number: int) -> str:
    return f"{number} class is" if number == 1 else f"{number} classes are"
