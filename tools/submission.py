"""Pack masks for a test server: python tools/submission.py voc|cityscapes MASKS [--root DIR]"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("submit")
