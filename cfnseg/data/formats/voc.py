"""PASCAL VOC 2012 segmentation (Everingham et al. 2015) and SBD (Hariharan et al. 2011)."""

from __future__ import annotations

from pathlib import Path

from cfnseg.data.files import existing, nonempty, partners, read_text
from cfnseg.data.labels import Label, LabelMap
from cfnseg.errors import UserError

NAMES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
REMEDY = (
    "Get it with: cfnseg prepare voc (or voc_aug), or --data.download True; or set "
    "--data.root (evaluation: --root) to the folder that has VOCdevkit/."
)


def color(index: int) -> tuple[int, int, int]:
    """VOC's colour of a raw id, after the devkit's VOClabelcolormap.

    Bit 3 b + c of the id is bit 7 - b of channel c.
    """
    channels = [0, 0, 0]
    for bit in range(8):
        for c in range(3):
            channels[c] |= (index >> (3 * bit + c) & 1) << (7 - bit)
    red, green, blue = channels
    return red, green, blue


LABELS = LabelMap(Label(i, name, color(i)) for i, name in enumerate(NAMES))


def _home(root: Path) -> Path:
    for home in (root / "VOCdevkit" / "VOC2012", root / "VOC2012", root):
        if (home / "ImageSets" / "Segmentation").is_dir():
            return home
    return existing(
        root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation", "PASCAL VOC 2012", REMEDY
    )


def _listed(path: Path) -> list[str]:
    """The names of a list file; UserError naming the first line that is not one new name."""
    lines = read_text(existing(path, f"the list of split {path.stem!r}", REMEDY)).splitlines()
    names: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        name, *more = line.split() or [""]
        if more in (["1"], ["0"], ["-1"]):
            raise UserError(
                f"{path}, line {number}: a list of one class, with 1, 0 or -1 after each "
                "name; take a list of names alone, such as train or val"
            )
        if more or name in names:
            raise UserError(
                f"{path}, line {number}: expected one name that is in no other line, got {line!r}"
            )
        if name:
            names[name] = None
    return list(names)


def _paired(
    home: Path, names: list[str], masks: Path, suffix: str, source: Path
) -> list[tuple[Path, Path]]:
    images = home / "JPEGImages"
    pictures, drawn = partners(names, images, ".jpg"), partners(names, masks, suffix)
    missing = [
        path
        for n in names
        for path, found in ((images / f"{n}.jpg", pictures), (masks / f"{n}{suffix}", drawn))
        if n not in found
    ]
    if missing:
        raise UserError(
            f"{source} names {len(names)} images, {len(missing)} files are missing, "
            f"first {missing[0]}. {REMEDY}"
        )
    return [(pictures[n], drawn[n]) for n in names]


def _list_file(home: Path, split: str) -> Path:
    return home / "ImageSets" / "Segmentation" / f"{split}.txt"


def images(root: Path, split: str) -> list[Path]:
    """Image paths of train, val, trainval or test (VOC2012test.tar).

    Raises UserError if files are missing.
    """
    home = _home(root)
    source = _list_file(home, split)
    return [
        image for image, _ in _paired(home, _listed(source), home / "JPEGImages", ".jpg", source)
    ]


def pairs(root: Path, split: str) -> tuple[list[tuple[Path, Path]], LabelMap]:
    """Image and mask paths of train, val or trainval; UserError for missing files."""
    home = _home(root)
    source = _list_file(home, split)
    found = _paired(home, _listed(source), home / "SegmentationClass", ".png", source)
    return nonempty(found, source.parent, source.name), LABELS


def pairs_aug(root: Path, split: str) -> tuple[list[tuple[Path, Path]], LabelMap]:
    """As `pairs`, but ``train`` adds SBD's train and val without VOC's val: 10,582 images in all.

    VOC's masks replace SBD's. SBD is the folder ``sbd`` or ``benchmark_RELEASE/dataset`` next to
    VOCdevkit, with the masks ``cls/*.mat``.
    """
    if split != "train":
        return pairs(root, split)
    home = _home(root)
    own, labels = pairs(root, "train")
    places = [root / "sbd", root / "benchmark_RELEASE" / "dataset"]
    found = next((p for p in places if (p / "cls").is_dir()), None)
    sbd = found or existing(places[0] / "cls", "SBD", REMEDY)
    names = {*_listed(sbd / "train.txt"), *_listed(sbd / "val.txt")}
    names -= {image.stem for image, _ in own} | set(_listed(_list_file(home, "val")))
    return own + _paired(home, sorted(names), sbd / "cls", ".mat", sbd / "train.txt"), labels
