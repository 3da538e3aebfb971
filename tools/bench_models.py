"""Training step and inference of CFN, baselines and decoders: python tools/bench_models.py"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("bench", "models")
