"""Training step and inference of CFN, baselines and decoders over the same bare encoder: python tools/bench_models.py [--models ...]"""

from pathlib import Path
from typing import Literal

import tyro

from cfnseg.cli import run_tool


def bench_models(*, models: tuple[str, ...] = ("cfn", "plain", "fcn", "unet", "fpn", "deeplabv3plus", "upernet", "segformer", "lraspp"),
                 encoder: str = "tf_efficientnet_lite0", sizes: tuple[tuple[int, int], ...] = ((360, 480),),
                 batches: tuple[int, ...] = (8,), classes: int = 19, precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
                 compile: bool = False, rounds: int = 7, out: Path = Path("runs/bench_models")) -> None:
    """Print one table; write models.md, models.json and models.png. On a GPU where there is one, else on the CPU.

    Args:
        models: names as model.name has them.
        encoder: timm backbone that all of them stand on.
        sizes: (H, W) pairs to sweep.
        batches: numbers of images to sweep.
        classes: C.
        precision: arithmetic on a GPU, as train.precision; a CPU has float32.
        compile: measure each compiled (torch.compile) as well.
        rounds: how often each time is taken, in turns with the encoder's.
        out: where the files go.
    """
    from cfnseg.benchmark.models import cases, measure, write_results
    from cfnseg.errors import UserError

    rows = []
    for case in cases(models, sizes, batches, compile):
        print(f"== {case}", flush=True)
        rows.append(measure(case, encoder, classes, precision, rounds))
        text = write_results(rows, encoder, out)
    print(text)
    if failed := sum("error" in row for row in rows):
        raise UserError(f"{failed} of {len(rows)} cases failed, see the table")


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(bench_models))
