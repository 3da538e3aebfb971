"""Suite: losses and samplers for rare classes, CamVid, equal images.

    cfnseg bench ablation ablation_losses --seeds 3 --root DIR
    python tools/benchmark.py configs/ablation_losses.py --seeds 3 --root DIR    # from a checkout

The network is lc_1x1 of ablation_camvid; encoder, data and schedule are that suite's. ce has no
class weights. median_25 and median_50 are median-frequency weights to that power. The other losses
have no class weights; a pair adds cross-entropy and the other with factor 1. rare draws half of the
samples for a class (data.rare). docs/training.md has the table.
"""

from dataclasses import replace

from cfnseg.lab.ablation import Suite, load_suite

base = load_suite("ablation_camvid").systems["lc_1x1"]
plain = replace(base, loss=replace(base.loss, class_weights="none", class_weight_power=1.0))


def loss(*terms: str):
    """Without class weights, other terms."""
    return replace(plain, loss=replace(plain.loss, terms=terms))


def weighted(power: float):
    """Cross-entropy with class weights."""
    return replace(base, loss=replace(base.loss, class_weight_power=power))


suite = Suite(
    reference="ce",
    size=(240, 320),
    classes=11,
    systems={
        "ce": plain,
        "median_25": weighted(0.25),
        "median_50": weighted(0.5),
        "focal": loss("focal"),
        "ce_dice": loss("ce", "dice"),
        "ce_tversky": loss("ce", "tversky"),
        "ce_lovasz": loss("ce", "lovasz"),
        "lovasz": loss("lovasz"),
        "rare": replace(plain, data=replace(plain.data, rare=0.5)),
        "rare_median_25": replace(weighted(0.25), data=replace(plain.data, rare=0.5)),
    },
)
