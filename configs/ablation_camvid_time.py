"""Suite: decoders against CFN, CamVid, equal training time.

    cfnseg bench ablation ablation_camvid_time --seeds 5 --root DIR
    python tools/benchmark.py configs/ablation_camvid_time.py --seeds 5 --root DIR    # a checkout

As ablation_camvid, but each decoder has as many steps as fit into lc_1x1's 400. A training step
over the bare encoder's, 8 crops of 160 x 192, one core, interleaved, 2026-11-29: lc_1x1 1.17,
segformer 2.67, fpn 2.40, unet 2.16, deeplabv3plus 1.90, lraspp 1.50. Reading the data adds 0.06 to
each. docs/ablation.md has the table.
"""

from dataclasses import replace

from cfnseg.lab.ablation import Suite, load_suite

STEPS = {"segformer": 180, "fpn": 200, "unet": 222, "deeplabv3plus": 252, "lraspp": 316}

camvid = load_suite("ablation_camvid")


def shortened(name: str, steps: int):
    """A system of ablation_camvid with fewer steps."""
    config = camvid.systems[name]
    return replace(config, train=replace(config.train, max_steps=steps))


suite = Suite(
    reference="lc_1x1",
    size=camvid.size,
    classes=camvid.classes,
    systems={
        "lc_1x1": camvid.systems["lc_1x1"],
        "lc_6x1": camvid.systems["lc_6x1"],
        **{name: shortened(name, steps) for name, steps in STEPS.items()},
    },
)
