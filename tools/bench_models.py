"""python tools/bench_models.py --help"""

import tyro

from cfnseg.cli import run_tool
from cfnseg.lab.bench import bench_models

if __name__ == "__main__":
    run_tool(lambda: tyro.cli(bench_models))
