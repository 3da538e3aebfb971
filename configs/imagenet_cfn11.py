"""The authors' CFN-11 on ImageNet, or any folder <split>/<class>/<image>.

    cfnseg classify imagenet_cfn11 --data.root DIR
    python tools/train_cls.py configs/imagenet_cfn11.py --data.root DIR    # from a checkout

Time and score: none yet, not run (it needs ImageNet and GPUs). The authors report 41.96 % top-1 and
19.09 % top-5 error. 6,752,362 parameters with 1,000 classes. The authors' solver starts at 0.01
with batch 64, and so does this schedule; the length is ours.
"""

from cfnseg.config import Config, Data, Model, Optim, Train

config = Config(
    model=Model(
        level="image",
        name="cfn",
        encoder="cfn11",
        encoder_weights=None,
        width=1024,
        fusion="lc",
        start="mean",
        fusion_norm="single",
        dropout=0.0,
    ),
    data=Data(
        name="image_folder",
        crop=(224, 224),
        scale=(0.25, 1.0),
        flip=True,
        photometric=0.0,
        workers=8,
    ),
    optim=Optim(name="sgd", lr=0.01, momentum=0.9, weight_decay=1e-4, bias_lr=2.0, schedule="step"),
    train=Train(epochs=60, batch=64, channels_last=True, precision="bf16-mixed"),
)
