"""CFN, ResNet-50, Cityscapes (19 classes), 512 x 1024 crops, 80k steps of 8.

    cfnseg train cityscapes_cfn --data.root DIR
    torchrun --nproc-per-node 4 -m cfnseg train cityscapes_cfn --data.root DIR
    python tools/train_seg.py configs/cityscapes_cfn.py --data.root DIR    # from a checkout

Time and score: none yet, not run in full. 2,975 training images; validation on whole 1024 x 2048
images. The schedule is mmsegmentation's 80k one, so the published rows compare: FCN 73.6, PSPNet
78.6, DeepLabV3+ 80.1 val mIoU, same encoder, single scale.
"""

from cfnseg.config import Config, Data, Loss, Model, Optim, Train

config = Config(
    model=Model(encoder="resnet50", encoder_weights="timm", width=256, grid=(6, 1)),
    data=Data(name="cityscapes", crop=(512, 1024), scale=(0.5, 2.0), photometric=0.5, workers=8),
    optim=Optim(name="sgd", lr=0.01, weight_decay=5e-4, power=0.9),
    loss=Loss(image=0.1),
    train=Train(
        max_steps=80_000,
        batch=8,
        precision="bf16-mixed",
        channels_last=True,
        val_every=10,
        save_every=1000,
    ),
)
