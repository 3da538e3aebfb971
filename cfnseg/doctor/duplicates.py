"""Images that occur twice, exactly or nearly, within a split and between splits."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cfnseg.doctor.examine import ImageFacts, MaskFacts, Record
from cfnseg.doctor.findings import ERROR, NOTE, WARNING, Finding, few, many
from cfnseg.doctor.hashes import alike, distances, near_pairs
from cfnseg.doctor.images import FLAT
from cfnseg.doctor.scan import Scan

NEAR = 8  # bits of 64 that two hashes may differ in; on average unrelated images differ in 32
ALIKE = 0.95  # correlation of the thumbnails that confirms it
SHOWN = 6  # pairs of pictures


def duplicate_findings(found: Scan, records: list[Record]) -> list[Finding]:
    """Findings about images with the same pixels, or that look the same."""
    seen = [i for i, r in enumerate(records) if isinstance(r.image, ImageFacts) and r.image.std.max() >= FLAT]
    if len(seen) < 2:
        return []
    splits = np.array([r.pair.split for r in records])
    exact, near = twins(records, seen)
    findings = []
    for kind, pairs in (("duplicate", exact), ("near-duplicate", near)):
        across = splits[pairs[:, 0]] != splits[pairs[:, 1]]
        for between, part in ((True, pairs[across]), (False, pairs[~across])):
            if len(part):
                findings.append((_exact if kind == "duplicate" else _near)(found, records, part, between))
    if different := [(int(i), int(j)) for i, j in exact if _masks_differ(records[i], records[j])]:
        files = [found.shown(records[i].pair.mask) for twins_ in different for i in twins_ if records[i].pair.mask]
        findings.append(Finding(
            "duplicate-disagrees", WARNING, "the same image with different masks",
            f"{many(len(different), 'pair')} of images with equal pixels, but not with equal masks: one of the two is wrong.",
            "one mask for one image", files, ["look at both, and delete one"], twins=different[:SHOWN]))
    return findings


def twins(records: list[Record], seen: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) indices of the images among ``seen`` that have equal pixels, and of those that look alike without being equal.

    Of many equal ones each is paired with the first.
    """
    first: dict[bytes, int] = {}
    exact = [(first[d], i) for i in seen for d in [records[i].image.digest] if first.setdefault(d, i) != i]
    ones = np.array(sorted(first.values()))
    pairs = ones[near_pairs(np.array([records[i].image.hash for i in ones], np.uint64), NEAR)]
    near = [(i, j) for i, j in pairs if alike(records[i].image.thumbnail, records[j].image.thumbnail) >= ALIKE]
    return np.array(exact, np.int64).reshape(-1, 2), np.array(near, np.int64).reshape(-1, 2)


def is_video(records: list[Record]) -> bool:
    """Whether neighbours by name look far more alike than any two images do: frames of a video."""
    hashes = np.array([r.image.hash for r in records if isinstance(r.image, ImageFacts)], np.uint64)  # a split's pairs are sorted by name
    if len(hashes) < 20:
        return False
    other = np.random.default_rng(0).permutation(hashes)
    return bool(np.median(distances(hashes[1:], hashes[:-1])) < 0.7 * np.median(distances(hashes, other)))


def _exact(found: Scan, records: list[Record], pairs: np.ndarray, between: bool) -> Finding:
    files = [_file(found, records[i]) for i in np.unique(pairs)]
    shown = [(int(i), int(j)) for i, j in pairs[:SHOWN]]
    named = few([f"{_file(found, records[i])} = {_file(found, records[j])}" for i, j in pairs])
    if between:
        return Finding(
            "duplicate-between", ERROR, "the same image in two splits", f"{many(len(pairs), 'pair')} with equal pixels: {named}. What was "
            "trained on cannot be validated on: the score comes out too high.", "no image in two splits", files,
            ["{mend}  # leaves the training copies out"], twins=shown)
    return Finding(
        "duplicate-within", WARNING, "the same image twice in a split", f"{many(len(pairs), 'copy')} with equal pixels: {named}. It counts "
        "twice in training or in the score.", "each image once", files, ["delete the copies with their masks"], twins=shown)


def _near(found: Scan, records: list[Record], pairs: np.ndarray, between: bool) -> Finding:
    images = np.unique(pairs)
    files = [_file(found, records[i]) for i in images]
    distance = [bin(records[i].image.hash ^ records[j].image.hash).count("1") for i, j in pairs]
    closest = [(int(i), int(j)) for _, (i, j) in sorted(zip(distance, pairs.tolist()))[:SHOWN]]
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(records), len(records)))
    groups = len(np.unique(connected_components(graph, directed=False)[1][images]))
    text = (f"{many(len(images), 'image')} in {many(groups, 'group')}, {many(len(pairs), 'pair')} (perceptual hashes at most {NEAR} of 64 "
            "bits apart).")
    video = is_video(records)
    if video:
        text += " Neighbours by name look alike throughout: frames of a video, where this is to be expected."
    if not between:
        return Finding("near-duplicate-within", NOTE, "images of a split that look alike", text, "", files, twins=closest)
    held = [i for i in images if found.roles.get(records[i].pair.split) == "val"]
    text += f" Of the validation images {len(held):,} look like one elsewhere: the score says less about other images."
    mend = ["split by sequence, with --data.holdout PREFIX"] if video else ["look at them, and keep a scene in one split"]
    return Finding("near-duplicate-between", NOTE if video else WARNING, "images that look alike in two splits", text,
                   "splits that share no scene", files, mend, twins=closest)


def _masks_differ(a: Record, b: Record) -> bool:
    return isinstance(a.mask, MaskFacts) and isinstance(b.mask, MaskFacts) and a.mask.digest != b.mask.digest


def _file(found: Scan, record: Record) -> str:
    return found.shown(record.pair.image) if record.pair.image else f"{record.pair.split}/{record.pair.name}"
