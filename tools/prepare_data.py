"""Get and check official data: python tools/prepare_data.py NAME [--root DIR]; see --help"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("prepare")
