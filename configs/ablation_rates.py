"""Suite: two learning rates a family, on held-out drives of IDD-Lite.

    cfnseg bench ablation ablation_rates --seeds 1 --root DIR
    python tools/benchmark.py configs/ablation_rates.py --seeds 1 --root DIR    # from a checkout

Scored on the 125 images of the drives whose number ends in 5, trained on the others; all else as in
ablation_idd, which holds out other drives.
"""

from dataclasses import replace

from cfnseg.lab.ablation import Suite, load_suite

FAMILIES = {
    "cfn": "lc_1x1",
    "late": "dag_cnn",
    "plain": "plain",
    "segformer": "segformer",
    "fpn": "fpn",
    "unet": "unet",
    "deeplabv3plus": "deeplabv3plus",
    "lraspp": "lraspp",
}

idd = load_suite("ablation_idd")


def at(name: str, rate: float):
    """A system at another learning rate, scored on other drives."""
    config = idd.systems[name]
    data = replace(config.data, holdout="*5_")
    return replace(config, data=data, optim=replace(config.optim, lr=rate))


suite = Suite(
    reference="cfn_3e-3",
    size=idd.size,
    classes=idd.classes,
    systems={
        f"{family}_{rate:.0e}".replace("e-0", "e-"): at(name, rate)
        for rate in (3e-3, 6e-3)
        for family, name in FAMILIES.items()
    },
)
