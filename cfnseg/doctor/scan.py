"""From a config to all pairs of its data set, found leniently: what `open_dataset` refuses is a finding here."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cfnseg.config import Config, Data
from cfnseg.data.dataset import USUAL_ROOT, FileDataset, open_dataset
from cfnseg.data.formats import camvid
from cfnseg.data.formats.folder import LAYOUT
from cfnseg.data.labels import Label, LabelMap
from cfnseg.doctor.classes import Classes, read_leniently, written
from cfnseg.doctor.examine import Pair
from cfnseg.doctor.findings import ERROR, WARNING, Finding
from cfnseg.doctor.folders import pair_files, splits_of
from cfnseg.errors import UserError

FOLDERS = ("folder", "camvid")  # data sets that lie in images/<split> and labels/<split>
HELD = "held out"


@dataclass
class Scan:
    """What there is to be read.

    Attributes:
        data: the config's section.
        root: the data set's folder; None if it is drawn.
        labels: None if the data set does not say.
        classes: of its classes.txt, if it has one.
        roles: split -> "train", "val" or "other".
        pairs, findings: so far.
    """

    data: Data
    root: Path | None
    labels: LabelMap | None = None
    classes: Classes | None = None
    roles: dict[str, str] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def void(self) -> list[Label]:
        """The lines of classes.txt that ignore an id."""
        return self.classes.void if self.classes else []

    def shown(self, path: Path) -> str:
        """A path relative to the data set's folder, if it lies there."""
        return path.relative_to(self.root).as_posix() if self.root and path.is_relative_to(self.root) else str(path)


def scan(config: Config) -> Scan:
    """The pairs of the training and validation splits, and of others that lie beside them."""
    data = config.data
    root = None if data.name == "shapes" else Path(data.root or USUAL_ROOT[data.name]).expanduser()
    found = Scan(data, root, roles={data.train_split: "train"})
    if not data.holdout:
        if data.val_split == data.train_split:
            found.findings.append(Finding(
                "same-split", WARNING, "validation uses the training images", f"Both splits are {data.val_split}.",
                "images that were not trained on", mend=["another split by --data.val-split, or a part of this one by --data.holdout"]))
        found.roles.setdefault(data.val_split, "val")
    (_scan_folders if data.name in FOLDERS else _scan_reader)(found)
    if data.holdout:
        _hold_out(found)
    return found


def _scan_reader(found: Scan) -> None:
    for split in found.roles:
        try:
            dataset = open_dataset(found.data.name, found.data.root, split)
        except UserError as error:
            found.findings.append(Finding("layout", ERROR, f"split {split} cannot be opened", str(error),
                                          f"the layout of {found.data.name} in data/README.md"))
            continue
        found.labels = dataset.labels
        if isinstance(dataset, FileDataset):
            found.pairs += [Pair(split, name, *paths) for name, paths in zip(dataset.names, dataset.pairs)]
        else:
            found.pairs += [Pair(split, name, None, None, (dataset, i)) for i, name in enumerate(dataset.names)]


def _scan_folders(found: Scan) -> None:
    root = found.root
    assert root is not None
    if not (root / "images").is_dir() or not (root / "labels").is_dir():
        nested = sorted({p.parent for pattern in ("*/images", "*/*/images") for p in root.glob(pattern) if (p.parent / "labels").is_dir()})
        has = ", ".join(sorted(p.name + "/" * p.is_dir() for p in root.iterdir())[:8]) if root.is_dir() else None
        found.findings.append(Finding("layout", ERROR, f"{root} " + ("does not exist" if has is None else "has no images/ and labels/"),
                                      "" if has is None else f"It has {has or 'nothing'}.", LAYOUT,
                                      mend=[f"--data.root {shlex.quote(str(p))}" for p in nested]))
        return
    there = splits_of(root)
    for split, role in list(found.roles.items()):
        if split not in there:
            found.findings.append(_missing(found, split, role, there))
    found.roles |= {split: "other" for split in there if split not in found.roles}
    for split in found.roles:
        pairs, findings = pair_files(root, split)
        found.pairs += pairs
        found.findings += findings
        if split in there and not any(p.image for p in pairs):
            found.findings.append(Finding("split-empty", ERROR, f"split {split} has no images", "", LAYOUT))
    if found.data.name == "camvid":
        found.labels = camvid.LABELS
    elif (root / "classes.txt").is_file():
        found.classes = read_leniently(root / "classes.txt")
        if found.classes:
            found.labels = found.classes.labels
            findings = found.classes.findings
            if found.classes.changed:  # one text mends them all
                findings = [dataclasses.replace(findings[0], classes=written(found.labels, found.classes.void)), *findings[1:]]
            found.findings += findings


def _missing(found: Scan, split: str, role: str, there: list[str]) -> Finding:
    """The finding for a split without folders, with the split or the prefix to take in its place."""
    free = [name for name in there if name not in found.roles]
    near = difflib.get_close_matches(split, free, 1, 0.4) or [name for name in free if name[:3] == split[:3]] or free[:1]
    mend = [f"--data.{role}-split {shlex.quote(near[0])}"] if near else []
    if role == "val" and not near and found.data.train_split in there:
        prefix = _prefix([p.name for p in pair_files(found.root, found.data.train_split)[0] if p.image])
        mend = [f"--data.holdout {shlex.quote(prefix)}"] if prefix else []
    text = f"images/ and labels/ have {', '.join(there) or 'no folders'}."
    return Finding("split-missing", ERROR, f"there is no split {split}", text, LAYOUT, mend=mend)


def _prefix(names: list[str]) -> str:
    """The prefix that holds out the share nearest to a fifth, between 5 and 50 %; "" if there is none."""
    counts = Counter(name[:n] for name in names for n in range(1, len(name)))
    fitting = [p for p, count in counts.items() if 0.05 <= count / len(names) <= 0.5]
    return min(fitting, key=lambda p: (abs(counts[p] / len(names) - 0.2), len(p), p), default="")


def _hold_out(found: Scan) -> None:
    """Part the training images as `cfnseg.data.dataset.hold_out` does."""
    train = found.data.train_split
    held = f"{train}, {HELD}"
    own = [p for p in found.pairs if p.split == train and (p.image or p.drawn)]
    count = sum(p.name.startswith(found.data.holdout) for p in own)
    if own and count in (0, len(own)):
        prefix = _prefix([p.name for p in own])
        found.findings.append(Finding(
            "holdout", ERROR, f"data.holdout {found.data.holdout!r} matches {count:,} of {len(own):,} training images",
            f"The first is {own[0].name}.", "the beginning of some images' names, not of all",
            mend=[f"--data.holdout {shlex.quote(prefix)}"] if prefix else []))
    found.pairs = [dataclasses.replace(p, split=held) if p.split == train and p.name.startswith(found.data.holdout) else p
                   for p in found.pairs]
    roles = {train: "train", held: "val"} if count else {train: "train"}
    found.roles = roles | {split: "other" for split in found.roles if split != train}
