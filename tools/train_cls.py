"""Train an image-level net: python tools/train_cls.py CONFIG [--resume] [--section.field VALUE ...]

On several processes: torchrun --nproc-per-node N tools/train_cls.py CONFIG ...
"""

from cfnseg.cli import run_tool, train_tool

if __name__ == "__main__":
    run_tool(lambda: train_tool("image"))
