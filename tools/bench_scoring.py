"""Scoring masks against decoding their PNGs: python tools/bench_scoring.py [--maps 500]"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("bench", "scoring")
