"""Suite: systems of ablation_camvid, IDD-Lite, drives held out, equal images.

    cfnseg bench ablation ablation_idd --seeds 3 --root DIR
    python tools/benchmark.py configs/ablation_idd.py --seeds 3 --root DIR    # from a checkout

The training split (1,403 images of 320 x 227, 7 classes) as a folder data set. The 183 images
of the 37 drives whose number ends in 0 are held out and scored at full size; the others train. All
else, the learning rates included, is ablation_camvid's. docs/ablation.md has the table.
"""

from dataclasses import replace

from cfnseg.lab.ablation import Suite, load_suite

camvid = load_suite("ablation_camvid")
suite = Suite(
    reference="lc_1x1",
    size=(227, 320),
    classes=7,
    systems={
        name: replace(
            config,
            model=replace(config.model, test_scale=1.0),
            data=replace(config.data, name="folder", holdout="*0_", scale=(1.0, 1.0)),
        )
        for name, config in camvid.systems.items()
    },
)
