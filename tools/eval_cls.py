"""Score the weights of an image-level net: python tools/eval_cls.py WEIGHTS [--root DIR] [--split S] [--out DIR]"""

from pathlib import Path

import tyro

from cfnseg.cli import run_tool


def eval_cls(weights: tyro.conf.Positional[Path], *, dataset: str = "", root: str = "", split: str = "test", out: Path | None = None,
             workers: int = 2, device: str = "auto") -> None:
    """Print the table and write report.json, report.md and report.html.

    Args:
        weights: a weights file of cfnseg.
        dataset: cifar10, cifar100 or image_folder ("" = what the weights were trained on).
        root: the data set's folder or zip ("" = its usual place under data/).
        split: the split to score.
        out: where the report goes ("" = beside the weights).
        workers: loader processes.
        device: auto, cpu or cuda.
    """
    from cfnseg.workflows import score_weights

    score_weights(weights, dataset, root, split, out, workers, device, level="image")


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(eval_cls))
