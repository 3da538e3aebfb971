"""Training samples and updates against the usual way: python tools/bench_step.py [--crop H W]"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("bench", "step")
