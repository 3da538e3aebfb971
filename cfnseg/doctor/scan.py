"""From a config to all pairs of its data set. What `open_dataset` refuses becomes a finding."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
from collections import Counter
from pathlib import Path

from cfnseg.config import Config
from cfnseg.data.annotations.detection import detect
from cfnseg.data.dataset import FileDataset, open_dataset, root_of
from cfnseg.data.files import IMAGE_TYPES, by_key, is_image, list_images
from cfnseg.data.folds import held_out, rule
from cfnseg.data.formats import camvid
from cfnseg.data.formats.folder import LAYOUT
from cfnseg.doctor.findings import ERROR, NOTE, WARNING, Case
from cfnseg.doctor.fix import HELD, read_leniently
from cfnseg.doctor.reading import Pair
from cfnseg.errors import UserError

FOLDERS = ("folder", "camvid")  # data sets that lie in images/<split> and labels/<split>
MASK_NAME = "labels/<split>/<image's name without its suffix>.png"
OTHER_IMAGES = (
    ".gif",
    ".avif",
    ".heic",
    ".heif",
    ".jp2",
    ".jxl",
    ".ppm",
    ".pgm",
    ".tga",
    ".jfif",
    ".raw",
    ".dng",
    ".npy",
)


def scan(config: Config) -> Case:
    """The pairs of the training and validation splits, and of the other splits in their folder."""
    data = config.data
    root = None if data.name == "shapes" else root_of(data.name, data.root)
    parts = data.train_split.split("+")
    case = Case(data, root, dict.fromkeys(parts, "train"))
    if not (data.holdout or data.fold):
        if data.val_split in parts:
            case.add(
                "same-split",
                WARNING,
                "validation uses the training images",
                f"data.train_split and data.val_split have {data.val_split}.",
                "images that were not trained on",
                ["another split by --data.val-split, or a part of this one by --data.holdout"],
            )
        case.roles.setdefault(data.val_split, "val")
    if root is not None and data.name in FOLDERS:
        _scan_folders(case, root)
    else:
        _scan_layout(case)
    if data.holdout or data.fold:
        _hold_out(case)
    return case


def _scan_layout(case: Case) -> None:
    for split in case.roles:
        try:
            dataset = open_dataset(case.data.name, case.data.root, split)
        except UserError as error:
            case.add(
                "layout",
                ERROR,
                f"split {split} cannot be opened",
                str(error),
                f"the layout of {case.data.name} in data/README.md",
            )
            continue
        case.labels = dataset.labels
        for i, name in enumerate(dataset.names):
            case.pairs.append(
                Pair(split, name, *dataset.pairs[i])
                if isinstance(dataset, FileDataset)
                else Pair(split, name, None, None, (dataset, i))
            )


def _scan_folders(case: Case, root: Path) -> None:
    images, labels = root / "images", root / "labels"
    whole = images.is_dir() and labels.is_dir()
    nested = {p.parent for pattern in ("*/images", "*/*/images") for p in root.glob(pattern)}
    nested = {p for p in nested if (p / "labels").is_dir()}
    odd = not _has_masks(labels) if whole else not nested
    if odd and (export := detect(root)):
        case.add(
            "layout",
            ERROR,
            f"{root} looks like a{'n' if export[0] in 'aeiou' else ''} {export} export",
            "cfnseg trains on masks.",
            LAYOUT,
            [f"cfnseg convert {export} {shlex.quote(str(root))} {shlex.quote(f'{root}_data')}"],
        )
        return
    if not root.is_dir():
        case.add("layout", ERROR, f"{root} does not exist", "", LAYOUT)
        return
    if not whole:
        has = ", ".join(sorted(p.name + "/" * p.is_dir() for p in root.iterdir())[:8])
        case.add(
            "layout",
            ERROR,
            f"{root} has no images/ and labels/",
            f"It has {has or 'nothing'}.",
            LAYOUT,
            [f"--data.root {shlex.quote(str(p))}" for p in sorted(nested)],
        )
        return
    there = sorted(
        {
            p.name
            for folder in (images, labels)
            for p in folder.iterdir()
            if p.is_dir() and not p.name.startswith(".")
        }
    )
    free = [split for split in there if split not in case.roles]
    case.roles |= dict.fromkeys(free, "other")
    for split, role in case.roles.items():
        if split not in there:
            _missing(case, split, role, free)
            continue
        pairs = pair_files(case, split)
        case.pairs += pairs
        if not any(p.image for p in pairs):
            case.add("split-empty", ERROR, f"split {split} has no images", "", LAYOUT)
    if case.data.name == "camvid":
        case.labels = camvid.LABELS
    elif (root / "classes.txt").is_file():
        read_leniently(case, root / "classes.txt")


def _has_masks(folder: Path) -> bool:
    """Whether a folder has an image file, deeper folders included."""
    return any(is_image(p) for p in folder.rglob("*"))


def _missing(case: Case, split: str, role: str, free: list[str]) -> None:
    """The finding for a split without folders, with the split or the prefix to take instead."""
    near = (
        difflib.get_close_matches(split, free, 1, 0.4)
        or [name for name in free if name[:3] == split[:3]]
        or free
    )[:1]
    fix = [f"--data.{role}-split {shlex.quote(name)}" for name in near]
    if role == "val" and not near:  # the training split comes first
        fix = _holdout_fix([p.name for p in case.pairs if p.image])
    there = ", ".join(sorted({*free, *(p.split for p in case.pairs)})) or "no folders"
    case.add(
        "split-missing",
        ERROR,
        f"there is no split {split}",
        f"images/ and labels/ have {there}.",
        LAYOUT,
        fix,
    )


def _holdout_fix(names: list[str]) -> list[str]:
    """The option whose prefix holds out the share nearest to a fifth, between 5 and 50 %."""
    counts = Counter(name[:n] for name in names for n in range(1, len(name)))
    fitting = [p for p, count in counts.items() if 0.05 <= count / len(names) <= 0.5]
    best = min(fitting, key=lambda p: (abs(counts[p] / len(names) - 0.2), len(p), p), default="")
    return [f"--data.holdout {shlex.quote(best)}" if best else "--data.fold 0/5"] if names else []


def _hold_out(case: Case) -> None:
    """Split the training images as `cfnseg.data.dataset.hold_out` does."""
    train = case.data.train_split
    parts = train.split("+")
    own = [p for p in case.pairs if p.split in parts and (p.image or p.drawn)]
    which = dict(zip(map(id, own), held_out([p.name for p in own], case.data)))
    count = sum(which.values())
    if own and count in (0, len(own)):
        case.add(
            "holdout",
            ERROR,
            f"{rule(case.data)} matches {count:,} of {len(own):,} training images",
            f"The first is {own[0].name}.",
            "some images, not all",
            _holdout_fix([p.name for p in own]),
        )
    held = f"{train}, {HELD}"
    case.pairs = [dataclasses.replace(p, split=held) if which.get(id(p)) else p for p in case.pairs]
    others = {split: "other" for split in case.roles if split not in parts}
    case.roles = dict.fromkeys(parts, "train") | ({held: "val"} if count else {}) | others


def pair_files(case: Case, split: str) -> list[Pair]:
    """The pairs of images/<split> and labels/<split>, and findings about the files' names."""
    folders = case.root / "images" / split, case.root / "labels" / split
    try:
        (images, others), (masks, unread) = map(_files, folders)
    except UserError as error:
        case.add(
            "file-name",
            ERROR,
            f"split {split} cannot be listed",
            str(error),
            "names in UTF-8",
            ["rename the file"],
        )
        return []

    def say(
        kind: str,
        severity: str,
        title: str,
        text: str,
        expected: str,
        fix: list[str],
        files: list[Path],
    ) -> None:
        if files:
            case.add(
                kind,
                severity,
                f"{title} in {split}",
                text,
                expected,
                fix,
                files=[case.shown(p) for p in files],
            )

    unlike = any(p.suffix.lower() in OTHER_IMAGES for p in others)
    say(
        "file-type",
        WARNING if unlike else NOTE,
        "files that are no images by their suffix",
        "They are left out.",
        f"*{' *'.join(IMAGE_TYPES)}",
        [],
        others + unread,
    )
    named = by_key(images, folders[0])
    say(
        "name-collision",
        ERROR,
        "images whose names differ only in their suffix or Unicode form",
        "One mask would belong to both, and cfnseg refuses the split.",
        "one image for each name",
        ["delete or rename one of the two images", "{fix}  # keeps the first of them"],
        _repeated(named),
    )
    pngs = by_key([p for p in masks if p.suffix.lower() == ".png"], folders[1])
    doubled = _repeated(pngs)
    say(
        "mask-collision",
        ERROR,
        "masks whose names differ only in their suffix's case or Unicode form",
        "Either may belong to the image, and cfnseg refuses the split.",
        "one mask for each name",
        ["delete or rename one of the two masks", "{fix}  # keeps the first of them"],
        doubled,
    )
    cased: dict[str, list[Path]] = {}
    for key, group in named.items():
        cased.setdefault(key.lower(), []).append(group[0])
    say(
        "name-case",
        WARNING,
        "images whose names differ only in upper and lower case",
        "On a disk that ignores case (Windows, macOS) one replaces the other.",
        "names that differ without their case too",
        ["rename one of the two, with its mask"],
        _repeated(cased),
    )
    taken = {p: pngs[key][0] for key, group in named.items() if key in pngs for p in group}
    exact = set(taken.values())
    renamed = _match([p for p in images if p not in taken], [p for p in masks if p not in exact])
    taken |= renamed
    say(
        "mask-name",
        ERROR,
        "masks that are named otherwise than their images",
        "They seem to belong together, but a mask is looked for under its image's name.",
        MASK_NAME,
        ["{fix}"],
        list(renamed.values()),
    )
    say(
        "mask-missing",
        ERROR,
        "images without a mask",
        "cfnseg refuses a split with such an image.",
        MASK_NAME,
        ["add the masks, or move the images elsewhere", "{fix}  # leaves them out"],
        [p for p in images if p not in taken],
    )
    used = {*taken.values(), *doubled}
    alone = [p for p in masks if p not in used]
    say(
        "image-missing",
        WARNING,
        "masks without an image",
        "They are never read.",
        "images/<split>/<mask's name>.jpg, or another image type",
        ["add the images, or delete the masks"],
        alone,
    )
    pairs = [Pair(split, key, p, taken.get(p)) for key, group in named.items() for p in group]
    pairs += [
        Pair(split, key, None, p) for key, group in by_key(alone, folders[1]).items() for p in group
    ]
    return sorted(pairs, key=lambda pair: (pair.name, str(pair.image)))


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """`list_images` of a folder and the folders in it; nothing if there is none."""
    return list_images(folder, deep=True) if folder.is_dir() else ([], [])


def _repeated(groups: dict[str, list[Path]]) -> list[Path]:
    return [p for group in groups.values() if len(group) > 1 for p in group]


def _match(images: list[Path], masks: list[Path]) -> dict[Path, Path]:
    """Image -> mask, for masks that are not named <image's name>.png but in a similar way."""
    before, after = _affix(images, masks)
    taken: dict[Path, Path] = {}
    for of_image, of_mask in (
        (str, str),
        (str.lower, str.lower),
        (str, lambda stem: stem.removeprefix(before).removesuffix(after)),
    ):
        used = set(taken.values())
        free = {of_mask(p.stem): p for p in reversed(masks) if p not in used}
        for image in images:
            if image not in taken and (key := of_image(image.stem)) in free:
                taken[image] = free.pop(key)
    return taken


def _affix(images: list[Path], masks: list[Path]) -> tuple[str, str]:
    """What most masks' names have before and after the images', such as "" and "_mask"."""
    stems = {mask.stem for mask in masks}
    for image in images[:5]:
        for stem in sorted(s for s in stems if image.stem in s and image.stem != s):
            before, after = stem.split(image.stem, 1)
            if 2 * sum(f"{before}{p.stem}{after}" in stems for p in images) > len(images):
                return before, after
    return "", ""
