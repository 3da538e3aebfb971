"""Examine a data set: python tools/doctor.py CONFIG [--data.FIELD V] [--out DIR] [--fix DIR]"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("doctor")
