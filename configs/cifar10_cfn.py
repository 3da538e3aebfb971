"""The authors' CFN on CIFAR-10 to the last detail, without augmentation.

    cfnseg classify cifar10_cfn --data.download True
    cfnseg eval runs/cifar10_cfn/best.safetensors --split test
    python tools/train_cls.py configs/cifar10_cfn.py --data.download True    # from a checkout

120,000 steps of 100 images (267 epochs of 45,000): minutes to an hour on a GPU, about a day on two
CPU cores. Score: none yet, not run in full. The authors report 8.27 % error on the test images,
trained on all 50,000 (--data.holdout "" --data.val-split test). Here 5,000 training images are held
out for validation. Net, start, learning rates, schedule and normalisation are the authors'.
cifar10_cfn_short is a schedule for a CPU.
"""

from cfnseg.config import Config, Data, Loss, Model, Optim, Train

config = Config(
    model=Model(
        level="image",
        name="cfn",
        encoder="cifar_net",
        encoder_weights=None,
        width=192,
        fusion="lc",
        start="mean",
        fusion_norm="none",
        dropout=0.5,
    ),
    data=Data(
        name="cifar10",
        holdout="5000",
        val_split="test",
        crop=(32, 32),
        scale=(1.0, 1.0),
        flip=False,
        photometric=0.0,
    ),
    optim=Optim(
        name="sgd",
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        fusion_lr=0.1,
        bias_lr=2.0,
        schedule="step",
        warmup=0.0,
    ),
    loss=Loss(side=0.3),
    train=Train(batch=100, max_steps=120_000, channels_last=True, val_every=5, save_every=1000),
)
