"""Score weights, or masks that any program wrote, by the metric contract.

python tools/eval_seg.py WEIGHTS [--root DIR] [--split S] [--out DIR] [--window H W] [--scales S...] [--flip]
python tools/eval_seg.py --predictions DIR --dataset NAME --root DIR --split S
"""

from pathlib import Path

import tyro

from cfnseg.cli import run_tool
from cfnseg.errors import UserError
from cfnseg.inference.settings import PLAIN, Inference


def eval_seg(weights: tyro.conf.Positional[Path | None] = None, *, predictions: Path | None = None, dataset: str = "",
             root: str = "", split: str = "val", out: Path | None = None, workers: int = 2, device: str = "auto",
             explain_metric: tyro.conf.FlagCreatePairsOff[bool] = False, pictures: tyro.conf.FlagCreatePairsOff[bool] = True,
             inference: tyro.conf.OmitArgPrefixes[Inference] = PLAIN) -> None:
    """Print the table and write report.json, report.md and report.html.

    Args:
        weights: a weights file of cfnseg.
        predictions: a folder of masks <image name>.png with raw ids, in place of weights.
        dataset: voc, voc_aug, cityscapes, camvid, coco, coco_voc, coco_stuff, ade20k, folder or shapes (with weights: what they were
            trained on).
        root: the data set's folder ("" = its usual place under data/).
        split: the split to score.
        out: where the report goes ("" = beside the weights or masks).
        workers: processes that read, and count masks.
        device: auto, cpu or cuda.
        explain_metric: add what other libraries would call mIoU, and why.
        pictures: show the worst and best images on the page; without them it has no copy of the data.
        inference: windows and views, with weights.
    """
    from cfnseg.workflows import score_predictions, score_weights

    if (weights is None) == (predictions is None):
        raise UserError("give either a weights file or --predictions DIR", code=2)
    if weights:
        score_weights(weights, dataset, root, split, out, workers, device, inference, explain_metric, pictures)
    else:
        score_predictions(predictions, dataset, root, split, out, workers, explain_metric, pictures)


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(eval_seg))
