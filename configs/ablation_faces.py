"""Suite: does the place pay where it defines labels? Left and right eyes.

    cfnseg bench ablation ablation_faces --seeds 3 --root DIR
    python tools/benchmark.py configs/ablation_faces.py --seeds 3 --root DIR    # from a checkout

FASSEG's frontal faces with the class "eyes" split into eye_left and eye_right: a folder data set,
20 training and 50 validation images 240 high, 7 classes. 250 steps of 8, crops of 192 x 160, no
mirroring, no other augmentation. "displaced" has the parameters of lc, and no place. All else is
ablation_camvid's. docs/ablation.md has the table.
"""

from dataclasses import replace

from cfnseg.config import Config
from cfnseg.lab.ablation import Suite, load_suite

camvid = load_suite("ablation_camvid").systems["lc_1x1"]
base = replace(
    camvid,
    model=replace(camvid.model, test_scale=1.0),
    data=replace(camvid.data, name="folder", crop=(192, 160), scale=(1.0, 1.0), flip=False),
    train=replace(camvid.train, max_steps=250),
)


def system(fusion_lr: float = 1.0, **settings) -> Config:
    """The base with other model settings and another learning-rate factor of the fusion weights."""
    optim = replace(base.optim, fusion_lr=fusion_lr)
    return replace(base, model=replace(base.model, **settings), optim=optim)


suite = Suite(
    reference="lc_1x1",
    size=(240, 180),
    classes=7,
    systems={
        "lc_1x1": system(),
        "lc_12x9": system(grid=(12, 9)),
        "lc_12x9_lr10": system(fusion_lr=10.0, grid=(12, 9)),
        "displaced_12x9": system(fusion="displaced", grid=(12, 9)),
        "displaced_12x9_lr10": system(fusion_lr=10.0, fusion="displaced", grid=(12, 9)),
    },
)
