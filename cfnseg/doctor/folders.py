"""Pairing the files of images/<split> and labels/<split> by what their names have in common, and what is wrong with the names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from cfnseg.data.files import IMAGE_TYPES, list_images, name_key
from cfnseg.doctor.examine import Pair
from cfnseg.doctor.findings import ERROR, NOTE, WARNING, Finding
from cfnseg.errors import UserError

MASK_NAME = "labels/<split>/<image's name without its suffix>.png"
OTHER_IMAGES = (".gif", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".pgm", ".tga", ".jfif", ".raw", ".dng", ".npy")


def splits_of(root: Path) -> list[str]:
    """The folders that images/ and labels/ have, sorted."""
    return sorted({p.name for kind in ("images", "labels") if (root / kind).is_dir() for p in (root / kind).iterdir()
                   if p.is_dir() and not p.name.startswith(".")})


def pair_files(root: Path, split: str) -> tuple[list[Pair], list[Finding]]:
    """All images and masks of a split, those that belong together in one pair, and findings about their names."""
    found: list[Finding] = []

    def say(kind: str, severity: str, title: str, text: str, files: list[Path], expected: str, mend: list[str]) -> None:
        if files:
            names = [p.relative_to(root).as_posix() for p in files]
            found.append(Finding(kind, severity, f"{title} in {split}", text, expected, names, mend))

    try:
        images, others = _files(root / "images" / split)
        masks, unread = _files(root / "labels" / split)
    except UserError as error:
        return [], [Finding("file-name", ERROR, f"split {split} cannot be listed", str(error), "names in UTF-8",
                            mend=["rename the file"])]

    def name(path: Path) -> str:
        """As `cfnseg.data.formats.folder` pairs them: the path in the split's folder, without suffix, in one Unicode form."""
        return name_key(path.relative_to(root / path.relative_to(root).parts[0] / split).with_suffix("").as_posix())

    severity = WARNING if any(p.suffix.lower() in OTHER_IMAGES for p in others) else NOTE
    say("file-type", severity, "files that are no images by their suffix", "They are left out.", others + unread,
        f"*{' *'.join(IMAGE_TYPES)}", [])
    by_stem = _grouped(images, name)
    say("name-collision", ERROR, "images whose names differ only in their suffix or Unicode form",
        "One mask would belong to both, and cfnseg refuses the split.", [p for group in by_stem.values() if len(group) > 1 for p in group],
        "one image for each name", ["delete or rename one of the two images", "{mend}  # keeps the first of them"])
    doubled = [group for group in _grouped([p for p in masks if p.suffix.lower() == ".png"], name).values() if len(group) > 1]
    say("mask-collision", ERROR, "masks whose names differ only in their suffix's case or Unicode form",
        "Either may belong to the image, and cfnseg refuses the split.", [p for group in doubled for p in group],
        "one mask for each name", ["delete or rename one of the two masks", "{mend}  # keeps the first of them"])
    cased = _grouped([group[0] for group in by_stem.values()], lambda p: name(p).lower())
    say("name-case", WARNING, "images whose names differ only in upper and lower case",
        "On a disk that does not tell them apart (Windows, macOS) one replaces the other.",
        [p for group in cased.values() if len(group) > 1 for p in group], "names that differ without their case too",
        ["rename one of the two, with its mask"])
    taken, renamed = _match(images, masks, name)
    say("mask-name", ERROR, "masks that are named otherwise than their images",
        "They seem to belong together, but a mask is looked for under its image's name.", renamed, MASK_NAME, ["{mend}"])
    say("mask-missing", ERROR, "images without a mask", "cfnseg refuses a split with such an image.", [p for p in images if p not in taken],
        MASK_NAME, ["add the masks, or move the images elsewhere", "{mend}  # leaves them out"])
    used = {*taken.values(), *(p for group in doubled for p in group)}
    alone = [p for p in masks if p not in used]
    say("image-missing", WARNING, "masks without an image", "They are never read.", alone,
        "images/<split>/<mask's name>.jpg, or another image type", ["add the images, or delete the masks"])
    pairs = [Pair(split, name(p), p, taken.get(p)) for p in images] + [Pair(split, name(p), None, p) for p in alone]
    return sorted(pairs, key=lambda pair: (pair.name, str(pair.image))), found


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """`list_images` of a folder and those in it; nothing if there is none."""
    return list_images(folder, deep=True) if folder.is_dir() else ([], [])


def _grouped(paths: list[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    groups = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return groups


def _match(images: list[Path], masks: list[Path], name: Callable[[Path], str]) -> tuple[dict[Path, Path], list[Path]]:
    """Image -> mask, and those masks that are not named <image's name>.png but in another way that can be made out."""
    exact = {name(mask): mask for mask in reversed(masks) if mask.suffix.lower() == ".png"}
    taken = {image: exact[name(image)] for image in images if name(image) in exact}
    free = dict.fromkeys(masks)  # a set that keeps its order
    for mask in taken.values():
        free.pop(mask, None)  # two images may share one
    renamed = []
    before, after = _affix([p for p in images if p not in taken], list(free))
    for key in (lambda stem: stem, str.lower, lambda stem: stem.removeprefix(before).removesuffix(after)):
        loose = {key(mask.stem): mask for mask in reversed(list(free))}
        for image in images:
            mask = loose.get(str.lower(image.stem) if key is str.lower else image.stem)
            if image not in taken and mask in free:
                taken[image] = mask
                del free[mask]
                renamed.append(mask)
    return taken, renamed


def _affix(images: list[Path], masks: list[Path]) -> tuple[str, str]:
    """What the masks' names have before and after the images', if most have the same; such as "" and "_mask"."""
    for image in images[:5]:
        for mask in masks:
            if image.stem != mask.stem and image.stem in mask.stem:
                before, after = mask.stem.split(image.stem, 1)
                stems = {m.stem for m in masks}
                if 2 * sum(f"{before}{p.stem}{after}" in stems for p in images) > len(images):
                    return before, after
    return "", ""
