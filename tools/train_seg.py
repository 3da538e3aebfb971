"""Train a segmentation model: python tools/train_seg.py CONFIG [--resume] [--section.field VALUE ...]

On several processes: torchrun --nproc-per-node N tools/train_seg.py CONFIG ...
"""

import os
import shlex
import sys
from pathlib import Path

from cfnseg.cli import parse_run, run_tool


def main() -> None:
    config, resume = parse_run(sys.argv[1:])
    from cfnseg import train

    try:
        folder = train(config, resume)
    except KeyboardInterrupt:
        saved = (Path(config.runs) / config.name / "last.ckpt").exists()
        if saved and os.environ.get("RANK", "0") == "0":
            command = shlex.join([*(a for a in sys.argv if a != "--resume"), "--resume"])
            print(f"stopped and saved; continue with the same command and --resume: {command}")
        raise
    if os.environ.get("RANK", "0") == "0":
        print(f"weights: {folder / 'best.safetensors'}\nreport:  {folder / 'report' / 'report.html'}")


if __name__ == "__main__":
    run_tool(main)
