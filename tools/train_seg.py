"""Train a segmentation model: python tools/train_seg.py CONFIG [--resume] [--section.field VALUE ...]

On several processes: torchrun --nproc-per-node N tools/train_seg.py CONFIG ...
"""

from cfnseg.cli import run_tool, train_tool

if __name__ == "__main__":
    run_tool(lambda: train_tool("pixel"))
