"""Suite: fusions, orders, baselines on CIFAR-10, for two CPU cores.

    cfnseg bench ablation ablation_cifar10 --seeds 2 --root DIR_OR_ZIP
    python tools/benchmark.py configs/ablation_cifar10.py --seeds 2 --root DIR_OR_ZIP

The authors' net, 600 steps of 50 images, bfloat16, no augmentation. All systems start from the
authors' scale (1/S). 45,000 images train; 5,000 are held out and scored. The result shows how fast
the systems learn, not where they end: cifar10_cfn has the authors' 120,000 steps. Table:
docs/ablation.md.
"""

from dataclasses import replace

from cfnseg.config import Config, load_config
from cfnseg.lab.ablation import Suite

short = load_config("cifar10_cfn_short")  # the recipe that ships; a path loads a copy of yours
base = replace(
    short,
    train=replace(short.train, batch=50, max_steps=600, val_every=100, precision="bf16-mixed"),
)


def system(**settings) -> Config:
    """The base with other model settings."""
    return replace(base, model=replace(base.model, **settings))


suite = Suite(
    reference="lc",
    size=(32, 32),
    classes=10,
    systems={
        "lc": system(),
        "plain": system(name="plain"),
        "sum": system(fusion="sum"),
        "conv": system(fusion="conv"),
        "eplf_lc": system(order="eplf"),
        "dsn": system(name="dsn"),
    },
)
