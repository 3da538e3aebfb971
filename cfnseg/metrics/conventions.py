"""What other libraries call mIoU, from the same counts: their rules differ in absent classes, and in what is averaged.

Read from their sources: mmsegmentation `IoUMetric` (mmseg/evaluation/metrics/iou_metric.py), cityscapesScripts
`evalPixelLevelSemanticLabeling`, torchmetrics 1.9 `JaccardIndex` and `segmentation.MeanIoU`, detectron2 `SemSegEvaluator`
(detectron2/evaluation/sem_seg_evaluation.py), PaddleSeg `mean_iou` (paddleseg/utils/metrics.py),
segmentation-models-pytorch 0.6 `iou_score` (segmentation_models_pytorch/metrics/functional.py) and torchvision's
references/segmentation/utils.py, each with its defaults. They compute in float32, this in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cfnseg.metrics.confusion import iou_of, scores_of


@dataclass(frozen=True)
class Convention:
    """What a library would report.

    Attributes:
        library: and the name of the metric in it.
        miou: 0..1, nan where its rule gives none.
        rule: in a line.
        why: what makes it differ from ours on these counts.
    """

    library: str
    miou: float
    rule: str
    why: str


def conventions(counts: np.ndarray) -> list[Convention]:
    """Every library's mIoU.

    Args:
        counts: (images, 3, C) int64 true positives, truth and predicted pixels (`cfnseg.metrics.confusion.counts_of`).

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
    of_pairs = f"every image counts alike, however many pixels of a class it has; of {images} x {classes} pairs {empty} are absent"
    rows = [
        ("cfnseg", ours, "one matrix over the split; mean over the classes in truth or prediction", "-"),
        ("mmsegmentation IoUMetric, torchmetrics JaccardIndex, Cityscapes scripts", ours, "as ours", "-"),
        ("detectron2 SemSegEvaluator", _mean(iou[total[1] > 0]), "mean over the classes in the truth",
         f"{_classes(only_predicted)} predicted but not in the truth: 0 in our mean, no term of this one"),
        ("PaddleSeg mean_iou", _mean(np.nan_to_num(iou, nan=0)), "mean over all classes, an absent one counts as 0", dropped),
        ("SMP iou_score macro", _mean(np.nan_to_num(iou, nan=1)), "mean over all classes, an absent one counts as 1", dropped),
        ("SMP iou_score micro", _mean(_micro(total)), "one IoU of all pixels, whatever their class",
         "classes weigh by their pixels, so rare ones hardly count"),
        ("SMP iou_score micro-imagewise", _mean(np.nan_to_num(_micro(counts), nan=1)), "the same of each image, then the mean",
         "classes weigh by their pixels, and every image counts alike"),
        ("SMP iou_score macro-imagewise", _mean(np.nan_to_num(each, nan=1)),
         "mean over classes and images, one that is absent from an image counts as 1", of_pairs),
        ("torchmetrics segmentation.MeanIoU", _mean(each[~np.isnan(each)]), "mean over the pairs of image and class that occur", of_pairs),
        ("torchvision references", float(np.mean(iou)), "mean over all classes, nan if one is absent", dropped)]
    return [Convention(name, value, rule, "-" if value == ours else why) for name, value, rule, why in rows]


def _micro(counts: np.ndarray) -> np.ndarray:
    """(...,) IoU of all classes together, from (..., 3, C) counts; nan where nothing was counted."""
    return iou_of(counts.sum(-1, keepdims=True))[..., 0]


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if np.size(values) else float("nan")


def _classes(number: int) -> str:
    return f"{number} class is" if number == 1 else f"{number} classes are"
