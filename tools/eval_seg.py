"""Score weights, or masks that any program wrote, by the metric contract.

python tools/eval_seg.py WEIGHTS [--root DIR] [--split S] [--out DIR]
python tools/eval_seg.py --predictions DIR --dataset NAME --root DIR --split S
"""

from pathlib import Path

import tyro

from cfnseg.cli import run_tool


def eval_seg(weights: tyro.conf.Positional[Path | None] = None, *, predictions: Path | None = None, dataset: str = "",
             root: str = "", split: str = "val", out: Path | None = None, workers: int = 2, device: str = "auto") -> None:
    """Print the table and write report.json, report.md and report.html.

    Args:
        weights: a weights file of cfnseg.
        predictions: a folder of masks <image name>.png with raw ids, in place of weights.
        dataset: voc, voc_aug, cityscapes, camvid, folder or shapes (with weights: what they were trained on).
        root: the data set's folder ("" = its usual place under data/).
        split: the split to score.
        out: where the report goes ("" = beside the weights or masks).
        workers: processes that read, and count masks.
        device: auto, cpu or cuda.
    """
    from cfnseg.tasks import score_predictions, score_weights

    if (weights is None) == (predictions is None):
        from cfnseg.errors import UserError

        raise UserError("give either a weights file or --predictions DIR", code=2)
    if weights:
        score_weights(weights, dataset, root, split, out, workers, device)
    else:
        score_predictions(predictions, dataset, root, split, out, workers)


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(eval_seg))
