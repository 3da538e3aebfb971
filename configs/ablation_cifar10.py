"""Fusions, orders and baselines on CIFAR-10 with the authors' net, for two CPU cores: 600 steps of 50 images, bfloat16.

    python tools/benchmark.py configs/ablation_cifar10.py --seeds 2 --root DIR_OR_ZIP

All start from the authors' scale (1/S). 45,000 training images, 5,000 held out and scored; no augmentation. This says how fast
the systems learn, not where they end: configs/cifar10_cfn.py has the authors' 120,000 steps. docs/ablation.md has the table.
"""

from dataclasses import replace
from pathlib import Path

from cfnseg.config import Config, load_config
from cfnseg.lab.ablation import Suite

short = load_config(Path(__file__).with_name("cifar10_cfn_short.py"))
base = replace(short, train=replace(short.train, batch=50, max_steps=600, val_every=100, precision="bf16-mixed"))


def system(**settings) -> Config:
    """The base with other model settings."""
    return replace(base, model=replace(base.model, **settings))


suite = Suite(reference="lc", size=(32, 32), classes=10, systems={
    "lc": system(),
    "plain": system(name="plain"),
    "sum": system(fusion="sum"),
    "conv": system(fusion="conv"),
    "eplf_lc": system(order="eplf"),
    "dsn": system(name="dsn"),
})
