"""Suite: six systems, Cityscapes squashed to 256 x 256, equal images.

    cfnseg bench ablation ablation_cityscapes256 --seeds 3 --root DIR
    python tools/benchmark.py configs/ablation_cityscapes256.py --seeds 3 --root DIR    # a checkout

A folder data set of 2,975 training images, 19 classes, whose masks were recovered from JPEG: no
number here compares with a published one. The first 499 images are held out and scored. All else,
the learning rates included, is ablation_camvid's. docs/ablation.md has the table.
"""

from dataclasses import replace

from cfnseg.lab.ablation import Suite, load_suite

SYSTEMS = ("lc_1x1", "lc_6x1", "plain", "segformer", "fpn", "deeplabv3plus")

camvid = load_suite("ablation_camvid")
suite = Suite(
    reference="lc_1x1",
    size=(256, 256),
    classes=19,
    systems={
        name: replace(
            camvid.systems[name],
            model=replace(camvid.systems[name].model, test_scale=1.0),
            data=replace(
                camvid.systems[name].data, name="folder", holdout="0[0-4]", scale=(1.0, 1.0)
            ),
        )
        for name in SYSTEMS
    },
)
