"""Second stage of camvid_cfn: larger crops at a larger scale.

    cfnseg train camvid_cfn_large --data.root DIR --train.init runs/camvid_cfn/best.safetensors
    python tools/train_seg.py configs/camvid_cfn_large.py ...    # the same, from a checkout

19 minutes on two cores of an AMD EPYC that other work shared (float32), 2026-11-23, seed 0. val
mIoU 76.6 over 11 classes at step 540 of 810. The first stage's weights have 76.0 at the same test
scale. The larger scale shows poles and signs. data/weights/camvid_cfn.safetensors has these weights
in float16, made by

    python -c "from cfnseg.models.weights import load, save_weights; \
    w = load('runs/camvid_cfn_large/best.safetensors'); save_weights( \
    'data/weights/camvid_cfn.safetensors', w.model, w.settings, w.labels, w.score, half=True)"
"""

from dataclasses import replace

from cfnseg.config import load_config

first = load_config("camvid_cfn")  # the recipe that ships; a path loads a copy of yours
config = replace(
    first,
    name="camvid_cfn_large",
    model=replace(first.model, test_scale=1.5),
    data=replace(first.data, crop=(320, 448), scale=(0.9, 2.1)),
    optim=replace(first.optim, lr=6e-4, warmup=0.05, ema=0.995),
    train=replace(first.train, epochs=18, val_every=6),
)
