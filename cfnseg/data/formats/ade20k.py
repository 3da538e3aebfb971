"""ADE20K's scene-parsing benchmark: 150 classes, raw id 0 = none of them (Zhou et al. 2017)."""

from __future__ import annotations

from pathlib import Path

from cfnseg.data.files import existing, paired, read_text
from cfnseg.data.formats.voc import color
from cfnseg.data.labels import Label, LabelMap
from cfnseg.errors import UserError

REMEDY = (
    "Get it with: cfnseg prepare ade20k; or set --data.root (evaluation: --root) to "
    "the folder that has ADEChallengeData2016/."
)
SPLITS = {"train": "training", "val": "validation"}


def read_names(path: Path) -> LabelMap:
    """The classes of objectInfo150.txt: raw ids 1 to 150, first unused names, VOC's colours.

    Raises UserError with the first wrong line.
    """
    labels: list[Label] = []
    for number, line in enumerate(read_text(path).splitlines()[1:], 2):  # line 1 names the columns
        fields = [field.strip() for field in line.split("\t") if field.strip()]
        if not fields:
            continue
        if not fields[0].isdigit() or not 1 <= int(fields[0]) <= 255:
            raise UserError(
                f"{path}, line {number}: expected Idx, Ratio, Train, Val, Name with tabs "
                f"between, got {line!r}"
            )
        index, taken = int(fields[0]), {label.name for label in labels}
        synonyms = [synonym.strip() for synonym in fields[-1].split(",")]
        name = next((s for s in synonyms if s not in taken), f"{synonyms[0]} {index}")
        labels.append(Label(index, name, color(index)))
    try:
        return LabelMap(labels, ignore=(0,), void=0)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def pairs(root: Path, split: str) -> tuple[list[tuple[Path, Path]], LabelMap]:
    """Image and mask paths of train or val, sorted by name. Raises UserError for missing files."""
    home = next(
        (p for p in (root / "ADEChallengeData2016", root) if (p / "annotations").is_dir()), None
    )
    home = home or existing(root / "ADEChallengeData2016" / "annotations", "ADE20K", REMEDY)
    folder = SPLITS.get(split, split)
    images = existing(home / "images" / folder, f"ADE20K's images of split {split!r}", REMEDY)
    masks = existing(home / "annotations" / folder, f"ADE20K's masks of split {split!r}", REMEDY)
    labels = read_names(existing(home / "objectInfo150.txt", "ADE20K's class names", REMEDY))
    return paired(images, masks, REMEDY), labels
