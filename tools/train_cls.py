"""Train a classification model: python tools/train_cls.py CONFIG [--resume] [--section.field VALUE]

Several processes: torchrun --nproc-per-node N tools/train_cls.py CONFIG ...
"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("classify")
