"""python tools/compare_encodings.py --help"""

import tyro

from cfnseg.cli import run_tool
from cfnseg.lab.bench import encodings

if __name__ == "__main__":
    run_tool(lambda: tyro.cli(encodings))
