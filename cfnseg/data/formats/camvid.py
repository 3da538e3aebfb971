"""CamVid as SegNet's authors distribute it: 360x480, 11 classes, void = 11.

Sources: Brostow et al. 2009; Badrinarayanan et al. 2017.
"""

from __future__ import annotations

from pathlib import Path

from cfnseg.data.files import existing
from cfnseg.data.formats import folder
from cfnseg.data.labels import Label, LabelMap

LABELS = LabelMap(
    [
        Label(i, name, color)
        for i, (name, color) in enumerate(
            [
                ("sky", (128, 128, 128)),
                ("building", (128, 0, 0)),
                ("pole", (192, 192, 128)),
                ("road", (128, 64, 128)),
                ("pavement", (60, 40, 222)),
                ("tree", (128, 128, 0)),
                ("sign", (192, 128, 128)),
                ("fence", (64, 64, 128)),
                ("car", (64, 0, 128)),
                ("pedestrian", (64, 64, 0)),
                ("bicyclist", (0, 128, 192)),
            ]
        )
    ],
    ignore=(11, 255),
    void=11,
)
REMEDY = "Get it with: cfnseg prepare camvid; or set --data.root (evaluation: --root)."


def pairs(root: Path, split: str) -> tuple[list[tuple[Path, Path]], LabelMap]:
    """Image and mask paths in the folder layout; SegNet's eleven classes, without classes.txt."""
    existing(root, "CamVid", REMEDY)
    return folder.images_and_masks(root, split), LABELS
