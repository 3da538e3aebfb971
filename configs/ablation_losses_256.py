"""Suite: losses and samplers for rare classes, Cityscapes at 256 x 256.

    cfnseg bench ablation ablation_losses_256 --seeds 3 --root DIR
    python tools/benchmark.py configs/ablation_losses_256.py --seeds 3 --root DIR

Systems of ablation_losses; data and schedule of ablation_cityscapes256. There a class is in as few
as 4 % of the images; CamVid's rarest is in 47 %. No number here compares with a published one.
"""

from dataclasses import replace

from cfnseg.lab.ablation import Suite, load_suite

SYSTEMS = ("ce", "median_25", "ce_lovasz", "rare", "rare_median_25")

own = load_suite("ablation_cityscapes256").systems["lc_1x1"]
systems = load_suite("ablation_losses").systems
suite = Suite(
    reference="ce",
    size=(256, 256),
    classes=19,
    systems={
        name: replace(
            own, loss=systems[name].loss, data=replace(own.data, rare=systems[name].data.rare)
        )
        for name in SYSTEMS
    },
)
