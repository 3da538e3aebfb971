"""Compare systems: python tools/benchmark.py SUITE [--seeds 3] [--root DIR] [--out DIR]"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("bench", "ablation")
