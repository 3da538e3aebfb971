"""Encodings of a CFN's stage: python tools/compare_encodings.py WEIGHTS [--root DIR]"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("bench", "encodings")
