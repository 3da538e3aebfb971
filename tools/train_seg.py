"""Train a segmentation model: python tools/train_seg.py CONFIG [--resume] [--section.field VALUE]

Several processes: torchrun --nproc-per-node N tools/train_seg.py CONFIG ...
"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("train")
