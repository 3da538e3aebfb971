"""python tools/bench_ops.py --help"""

import tyro

from cfnseg.cli import run_tool
from cfnseg.lab.bench import bench_ops

if __name__ == "__main__":
    run_tool(lambda: tyro.cli(bench_ops))
