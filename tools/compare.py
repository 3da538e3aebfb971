"""Compare two scored runs on the same images: python tools/compare.py RUN_A RUN_B [--out DIR]"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("compare")
