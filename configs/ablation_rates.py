"""Suite: two learning rates a family, on a held-out CamVid sequence.

    cfnseg bench ablation ablation_rates --seeds 1 --root DIR
    python tools/benchmark.py configs/ablation_rates.py --seeds 1 --root DIR    # from a checkout

Trained without sequence 0006R0 and scored on its 101 images; all else as in ablation_camvid.
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

camvid = load_suite("ablation_camvid")


def at(name: str, rate: float):
    """A system at another learning rate, scored on the held-out sequence."""
    config = camvid.systems[name]
    data = replace(config.data, holdout="0006R0")
    return replace(config, data=data, optim=replace(config.optim, lr=rate))


suite = Suite(
    reference="cfn_1e-3",
    size=camvid.size,
    classes=camvid.classes,
    systems={
        f"{family}_{rate:.0e}".replace("e-0", "e-"): at(name, rate)
        for rate in (1e-3, 3e-3)
        for family, name in FAMILIES.items()
    },
)
