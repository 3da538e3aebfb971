"""python tools/bench_step.py --help"""

import tyro

from cfnseg.cli import run_tool
from cfnseg.lab.bench import bench_step

if __name__ == "__main__":
    run_tool(lambda: tyro.cli(bench_step))
