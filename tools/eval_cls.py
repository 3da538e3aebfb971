"""Score a classification model: python tools/eval_cls.py WEIGHTS [--root DIR] [--split S]"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("eval_cls")
