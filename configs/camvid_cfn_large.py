"""Second stage of the CamVid model: the first stage's weights, larger crops at a larger scale, so that poles and signs are seen.

    python tools/train_seg.py configs/camvid_cfn_large.py --data.root DIR --train.init runs/camvid_cfn/best.safetensors
"""

from dataclasses import replace
from pathlib import Path

from cfnseg.config import load_config

first = load_config(Path(__file__).with_name("camvid_cfn.py"))
config = replace(
    first,
    name="camvid_cfn_large",
    model=replace(first.model, test_scale=1.5),
    data=replace(first.data, crop=(320, 448), scale=(0.9, 2.1)),
    optim=replace(first.optim, lr=6e-4, warmup=0.05, ema=0.995),
    train=replace(first.train, epochs=18, val_every=6),
)
