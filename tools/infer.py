"""Segment images, folders and clips: python tools/infer.py PATH... [--weights W] [--out DIR]"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("infer")
