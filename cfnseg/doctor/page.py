"""doctor.html: one file with the findings, the classes, and pictures of both."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from cfnseg.data.bands import as_picture
from cfnseg.data.dataset import read_sample
from cfnseg.data.files import read_image
from cfnseg.data.formats.voc import color
from cfnseg.data.labels import IGNORE
from cfnseg.doctor.findings import ERROR, FEW, WARNING, Case, Finding, many
from cfnseg.doctor.forms import decoded
from cfnseg.doctor.images import apart
from cfnseg.doctor.reading import open_mask, pack_pixels
from cfnseg.drawing import View, address, blend, fitted, photo, shrink
from cfnseg.errors import UserError
from cfnseg.metrics.place import GRIDS, Grid, coarsened
from cfnseg.report.html import render

SIDES = (400, 280, 180, 100)  # longest sides of pictures to try
EACH = 3  # pairs shown of a finding
SAMPLE = 6  # pairs shown of the whole data set
MAPPED: tuple[Grid, ...] = ((6, 1), (6, 8), (24, 32))  # maps of the place, by grid
MAP = 320  # their longest side
STRANGE = (255, 0, 255)  # colour of ids that are no class and not ignored
Picture = np.ndarray | None


@dataclass(frozen=True)
class Strip:
    """Pictures that belong together, and their caption."""

    name: str
    note: str
    views: list[View]


def doctor_page(case: Case, report: dict[str, Any]) -> str:
    """The page for the content of doctor.json."""
    strips, sample = pictures(case)
    most = [
        max((c["share"] for c in split["classes"]), default=0) or 1 for split in report["splits"]
    ]
    return render(
        "doctor",
        r=report,
        lead=lead(report),
        found=list(zip(report["findings"], strips)),
        place=place_views(case),
        sample=sample,
        most=most,
        few=FEW,
    )


def lead(report: dict[str, Any]) -> str:
    """The sentence that opens the page: the finding of the worst severity with the most files."""
    severity = next((s for s in (ERROR, WARNING) if report["counts"][s]), None)
    if severity is None:
        return "Nothing is wrong with this data set. It is ready for training."
    found = [f for f in report["findings"] if f["severity"] == severity]
    worst = max(found, key=lambda finding: finding["count"])
    files = f" ({many(worst['count'], 'file')})" if worst["count"] else ""
    count, above = many(len(found), severity), ", above all" if len(found) > 1 else ""
    start = f"Fix {count} before you train" if severity == ERROR else f"Look at {count} first"
    return f"{start}{above}: {worst['title']}{files}."


def pictures(case: Case) -> tuple[list[list[Strip]], list[Strip]]:
    """Strips of each finding and of a sample of the whole data set, small enough for one page."""
    good = sorted(case.images.keys() & case.masks.keys())
    at = np.linspace(0, len(good) - 1, min(SAMPLE, len(good))).astype(int)
    sample = [good[k] for k in np.unique(at)]
    wanted = set(sample)
    for finding in case.findings:
        wanted.update(finding.pairs[:EACH], *finding.twins)
    loaded = {i: _load(case, i) for i in sorted(wanted)}

    def draw(side: int) -> tuple[list[list[Strip]], list[Strip]]:
        small = {
            i: (_within(image, side), _within(mask, side, ids=True))
            for i, (image, mask) in loaded.items()
        }

        def of(finding: Finding) -> list[Strip]:
            return [
                *(_pair(case, i, *small[i]) for i in finding.pairs[:EACH]),
                *(_twins(case, i, j, small[i][0], small[j][0]) for i, j in finding.twins),
            ]

        return [of(f) for f in case.findings], [_pair(case, i, *small[i]) for i in sample]

    def size(drawn: tuple[list[list[Strip]], list[Strip]]) -> int:
        strips = [*drawn[1], *(strip for group in drawn[0] for strip in group)]
        return sum(len(view.picture or "") for strip in strips for view in strip.views)

    return fitted(draw, SIDES, size)


def _within(picture: Picture, side: int, ids: bool = False) -> Picture:
    return None if picture is None else shrink(picture, side, ids)


def _load(case: Case, index: int) -> tuple[Picture, Picture]:
    """Image and coloured mask, each (h, w, 3) uint8 of the largest side that is shown, or None."""
    pair = case.pairs[index]
    image = mask = None
    if pair.drawn:
        dataset, at = pair.drawn
        image, train = read_sample(dataset, at)
        mask = dataset.labels.colorize(train)
    with contextlib.suppress(UserError):  # a finding says why
        if pair.image:
            image = as_picture(read_image(pair.image, case.data.channels))
    with contextlib.suppress(UserError):
        mask = _colored(case, index, open_mask(pair.mask)[0]) if pair.mask else mask
    return _within(image, SIDES[0]), _within(mask, SIDES[0], ids=True)


def _colored(case: Case, index: int, pixels: np.ndarray) -> np.ndarray:
    """A mask as it is understood: ignored pixels white, unknown ids in a striking colour."""
    if pixels.ndim == 3 and case.forms[index] is None:
        return pixels
    ids, at = decoded(pixels, case.forms[index])
    if case.labels is None:
        colors = [color(i % 256) for i in ids.tolist()]
    else:
        known = {label.id: label.color for label in case.labels.labels}
        known |= dict.fromkeys(case.labels.ignore, (255, 255, 255))
        colors = [known.get(i, STRANGE) for i in ids.tolist()]
    return np.array(colors, np.uint8).reshape(-1, 3)[at]


def _pair(case: Case, index: int, image: Picture, mask: Picture) -> Strip:
    """Image, mask and both together; what is missing leaves its frame."""
    record = case.records[index]
    shape = next((x.shape for x in (image, mask) if x is not None), (3, 4))
    facts = {"image": case.images.get(index), "mask": case.masks.get(index)}
    sizes = [f"{kind} {x.size[1]}x{x.size[0]}" for kind, x in facts.items() if x]
    views = [
        _view("image", image, shape, "no image" if record.image is None else "unreadable"),
        _view("mask", mask, shape, "no mask" if record.mask is None else "unreadable", True),
    ]
    if image is not None and mask is not None:
        both = None
        if facts["image"].size == facts["mask"].size:
            size = image.shape[1::-1]
            both = blend(image, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST))
        views.append(_view("together", both, shape, "sizes differ"))
    return Strip(record.pair.name, ", ".join([record.pair.split, *sizes]), views)


def _twins(case: Case, i: int, j: int, one: Picture, two: Picture) -> Strip:
    pairs = case.pairs[i], case.pairs[j]
    views = [
        _view(f"{pair.split}: {pair.name}", picture, (3, 4), "unreadable")
        for pair, picture in zip(pairs, (one, two))
    ]
    equal = case.images[i].digest == case.images[j].digest
    same = "equal pixels" if equal else f"hashes {apart(case, i, j)} of 64 bits apart"
    return Strip(" and ".join(pair.name for pair in pairs), same, views)


def place_views(case: Case) -> list[View]:
    """The most frequent class of the training masks by cell, for the grids that the page shows.

    None where the place explains little: the maps would show the background alone.
    """
    if case.place is None or case.place.grid == GRIDS[0]:
        return []
    sizes = [mask.size for i, mask in case.masks.items() if case.role(i) == "train"]
    height, width = np.median(sizes, 0)
    scale = MAP / max(height, width)
    views = []
    for grid in MAPPED:
        counts = coarsened(case.place.counts, grid)
        ids = np.where(counts.any(-1), counts.argmax(-1), IGNORE).astype(np.uint8)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        enlarged = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)
        picture = case.labels.colorize(enlarged)
        views.append(_view(f"{grid[0]}x{grid[1]}", picture, picture.shape, "", True))
    return views


def _view(
    heading: str, picture: Picture, shape: tuple[int, ...], instead: str, lossless: bool = False
) -> View:
    if picture is None:
        return View(heading, None, instead, shape[1], shape[0])
    if lossless and len(np.unique(pack_pixels(picture))) <= 256:
        indexed = Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE)
        data = address(indexed, "PNG", optimize=True)
    else:
        data = photo(picture)
    return View(heading, data, "", picture.shape[1], picture.shape[0])
