"""Score weights, or masks that any program wrote, by the metric contract.

python tools/eval_seg.py WEIGHTS [--root DIR] [--split S] [--out DIR] [--window H W] [--flip]
python tools/eval_seg.py --predictions DIR --dataset NAME --root DIR --split S
"""

from cfnseg.cli import run

if __name__ == "__main__":
    run("eval_seg")
