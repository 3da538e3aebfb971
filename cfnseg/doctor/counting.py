"""How many pixels of which class: histograms of the splits, absent and rare classes, masks that count for nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cfnseg.doctor.examine import MaskFacts, Record
from cfnseg.doctor.findings import ERROR, NOTE, WARNING, Finding, few, many
from cfnseg.doctor.forms import PLAIN, Form
from cfnseg.doctor.scan import Scan

HIDDEN = 0.8  # share of ignored pixels from which a mask is named
RARE, FEW_IMAGES = 1e-4, 3  # share of the counted pixels, and images, below which a class is rare


@dataclass(frozen=True)
class Counts:
    """Pixels in one split's masks.

    Attributes:
        pixels: (C,) int64 of each class.
        images: (C,) int64, those that have the class.
        ignored, unknown: pixels that are ignored, or neither ignored nor a class.
        masks: how many were counted.
    """

    pixels: np.ndarray
    images: np.ndarray
    ignored: int
    unknown: int
    masks: int

    @property
    def share(self) -> np.ndarray:
        """(C,) float64 of the counted pixels; 0 if there are none."""
        return self.pixels / max(1, self.pixels.sum())


def count(found: Scan, records: list[Record], forms: list[Form | None]) -> np.ndarray:
    """(records, C + 2) int64 pixels of each class, ignored, and unknown; zeros where there is no readable mask.

    Masks in a form that was recognised count as what they mean.
    """
    labels = found.labels
    assert labels is not None
    column = {label.id: c for c, label in enumerate(labels.labels)} | {i: len(labels) for i in labels.ignore}
    rows = np.zeros((len(records), len(labels) + 2), np.int64)
    for row, record, form in zip(rows, records, forms):
        if isinstance(record.mask, MaskFacts):
            ids = record.mask.values if form is PLAIN or form is None else form.ids(record.mask.values)
            known = not record.mask.colored or form is not None
            np.add.at(row, [column.get(i, len(labels) + 1) if known else len(labels) + 1 for i in ids.tolist()], record.mask.counts)
    return rows


def counts_of(rows: np.ndarray) -> Counts:
    """The sum over some rows of `count`."""
    pixels = rows[:, :-2]
    return Counts(pixels.sum(0), (pixels > 0).sum(0), int(rows[:, -2].sum()), int(rows[:, -1].sum()), int(rows.any(1).sum()))


def count_findings(found: Scan, records: list[Record], rows: np.ndarray) -> list[Finding]:
    """Findings about the histograms of splits."""
    findings = []
    splits = np.array([r.pair.split for r in records])
    for split, role in found.roles.items():
        own = np.flatnonzero(splits == split)
        counts = counts_of(rows[own])
        if counts.masks == 0:
            continue
        findings += _ignored(found, records, rows, own, split)
        if counts.pixels.sum() == 0:
            continue
        findings += _absent(found, counts, split, role)
    return findings


def _absent(found: Scan, counts: Counts, split: str, role: str) -> list[Finding]:
    findings = []
    names = found.labels.names
    if absent := [name for name, pixels in zip(names, counts.pixels) if pixels == 0]:
        severity = {"train": ERROR, "val": WARNING, "other": NOTE}[role]
        text = {"train": " A class without a pixel cannot be learnt, and its output stays in the net.",
                "val": " Such a class has no IoU here; where it is predicted it counts as 0.", "other": ""}[role]
        mend = ["add images with these classes"] + ["or take their lines out of classes.txt"] * (found.data.name == "folder")
        findings.append(Finding("class-absent", severity, f"classes absent from {split}",
                                f"{', '.join(absent)}: no pixel in {many(counts.masks, 'mask')}.{text}",
                                "some pixels of every class", mend=mend if role == "train" else []))
    scarce = (counts.share < RARE) | (counts.images < min(FEW_IMAGES, counts.masks))
    rare = [c for c in np.argsort(counts.share, kind="stable") if counts.pixels[c] and scarce[c]]
    if rare:
        text = few([f"{names[c]} ({counts.share[c]:.3%} of the pixels, {many(int(counts.images[c]), 'image')})" for c in rare])
        findings.append(Finding("class-rare", NOTE, f"rare classes in {split}", f"{text}.", "",
                                mend=["--loss.class-weights median"] if role == "train" else []))
    return findings


def _ignored(found: Scan, records: list[Record], rows: np.ndarray, own: np.ndarray, split: str) -> list[Finding]:
    known = own[(rows[own, -1] == 0) & rows[own].any(1)]
    share = rows[known, -2] / np.maximum(1, rows[known].sum(1))
    nothing, little = known[share == 1], known[(share > HIDDEN) & (share < 1)]
    findings = []
    for group, kind, title, worth in ((nothing, "all-ignored", "masks in which everything is ignored", "nothing"),
                                      (little, "mostly-ignored", f"masks of which more than {HIDDEN:.0%} is ignored", "little")):
        if len(group):
            severity = ERROR if len(nothing) == len(own) else WARNING
            files = [found.shown(p.mask) if p.mask else p.name for p in (records[i].pair for i in group)]
            findings.append(Finding(
                kind, severity, f"{title}, in {split}", f"{len(group):,} of {len(own):,} masks. Such an image teaches and scores {worth}.",
                "pixels of the classes", files, ["leave these images out, or label them"], pairs=group.tolist()))
    return findings
