"""CFN, ResNet-50, ADE20K (150 classes), 512 x 512 crops, 160k steps of 16.

    cfnseg prepare ade20k
    torchrun --nproc-per-node 4 -m cfnseg train ade20k_cfn
    python tools/train_seg.py configs/ade20k_cfn.py    # one process, from a checkout

Time and score: none yet, not run in full. 20,210 training images. The schedule is mmsegmentation's
160k one, so its row compares: DeepLabV3+ 43.95 val mIoU, same encoder, single scale.
"""

from cfnseg.config import Config, Data, Loss, Model, Optim, Train

config = Config(
    model=Model(encoder="resnet50", encoder_weights="timm", width=256, grid=(1, 1)),
    data=Data(name="ade20k", crop=(512, 512), scale=(0.5, 2.0), photometric=0.5, workers=8),
    optim=Optim(name="sgd", lr=0.01, weight_decay=5e-4, power=0.9),
    loss=Loss(image=0.1),
    train=Train(
        max_steps=160_000,
        batch=16,
        precision="bf16-mixed",
        channels_last=True,
        val_every=10,
        save_every=1000,
    ),
)
