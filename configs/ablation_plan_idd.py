"""Suite: what cfnseg plan writes against a first recipe, IDD-Lite, 3 min.

    cfnseg bench ablation ablation_plan_idd --seeds 3 --root DIR
    python tools/benchmark.py configs/ablation_plan_idd.py --seeds 3 --root DIR

plan is the config that `cfnseg plan DIR --holdout "*0_" --hours 0.05` wrote, for one core of an AMD
EPYC: the training split as a folder data set, whole drives held out. All else as in
ablation_plan_camvid.
"""

from dataclasses import replace

from cfnseg.lab.ablation import Suite, load_suite

camvid = load_suite("ablation_plan_camvid").systems
held_out = {"name": "folder", "holdout": "*0_"}
plan, first = camvid["plan"], camvid["first"]
suite = Suite(
    reference="first",
    size=(227, 320),
    classes=7,
    systems={
        "first": replace(first, data=replace(first.data, **held_out)),
        "plan": replace(
            plan,
            model=replace(plan.model, test_scale=0.75),
            data=replace(plan.data, scale=(0.375, 1.125), **held_out),
            train=replace(plan.train, epochs=3, val_every=1),
        ),
    },
)
