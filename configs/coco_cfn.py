"""CFN, ResNet-50, COCO 2017 as VOC's 21 classes: pretraining for voc_cfn.

    cfnseg prepare coco_voc
    torchrun --nproc-per-node 8 -m cfnseg train coco_cfn
    cfnseg train voc_cfn --train.init runs/coco_cfn/best.safetensors
    python tools/train_seg.py configs/coco_cfn.py    # one process, from a checkout

Time and score: none yet, not run in full. 118,287 training images, 480 x 480 crops, 110k steps of
32. Batch, learning rate, crop and the 30 epochs are those in torchvision's references. Their val
mIoU with the same encoder is 60.5 (FCN) and 66.4 (DeepLabV3). They leave out training images
without VOC's classes, and ignore where objects overlap. Other label spaces: --data.name coco (80
things and background), --data.name coco_stuff (171).
"""

from cfnseg.config import Config, Data, Loss, Model, Optim, Train

config = Config(
    model=Model(encoder="resnet50", encoder_weights="timm", width=256, grid=(1, 1)),
    data=Data(name="coco_voc", crop=(480, 480), scale=(0.5, 2.0), photometric=0.5, workers=8),
    optim=Optim(name="sgd", lr=0.02, weight_decay=1e-4, power=0.9),
    loss=Loss(image=0.1),
    train=Train(
        max_steps=110_000,
        batch=32,
        precision="bf16-mixed",
        channels_last=True,
        val_every=2,
        save_every=1000,
    ),
)
