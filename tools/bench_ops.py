"""Fusion, loss and class maps against torch: python tools/bench_ops.py [--ops lc_fuse ...]"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("bench", "ops")
