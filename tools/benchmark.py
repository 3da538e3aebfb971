"""python tools/benchmark.py --help"""

import tyro

from cfnseg.cli import run_tool
from cfnseg.lab.bench import ablation

if __name__ == "__main__":
    run_tool(lambda: tyro.cli(ablation))
